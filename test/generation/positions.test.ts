import fc from "fast-check";
import { expect, test } from "vitest";
import { toPositions, truncateToContext } from "../../src/generation/generate.ts";
import { vicunaV0 } from "../../src/tokenizers/prompts.ts";
import { byteTokenizer } from "../helpers/tiny-llama.ts";

test("the oldest positions are dropped when a text is too long for its answer", () => {
  expect(truncateToContext([1, 2, 3, 4, 5], 2, 7)).toEqual([1, 2, 3, 4, 5]);
  expect(truncateToContext([1, 2, 3, 4, 5], 2, 5)).toEqual([3, 4, 5]);
  fc.assert(
    fc.property(fc.array(fc.nat(9), { minLength: 1 }), fc.integer({ min: 1, max: 20 }), (sequence, maxNewTokens) => {
      const kept = truncateToContext(sequence, maxNewTokens, 21);
      expect(kept).toEqual(sequence.slice(sequence.length - kept.length));
      expect(kept.length).toBe(Math.min(sequence.length, 21 - maxNewTokens));
    }),
  );
});

test("a prompt with more image placeholders than images is refused", () => {
  const prompt = vicunaV0.render([{ role: "user", text: "What?", images: 2 }]);
  expect(() => toPositions(prompt, [[]], byteTokenizer)).toThrow("The prompt places image 2, but only 1 were given");
});
