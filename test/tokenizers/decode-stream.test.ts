import fc from "fast-check";
import { expect, test } from "vitest";
import { TextStream } from "../../src/tokenizers/decode-stream.ts";
import { loadSentencePiece, tokenizerFromGguf } from "../../src/tokenizers/load.ts";
import { llamaSets, smolLm2Metadata } from "../helpers/golden-texts.ts";

const smolLm2 = tokenizerFromGguf(smolLm2Metadata());
const llama = await loadSentencePiece(llamaSets[0]?.tokenizerModel ?? "");

test.each([
  ["byte-level", smolLm2],
  ["SentencePiece", llama],
])("%s: the pieces together are the decoded text, whatever the ids", (_, tokenizer) => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: tokenizer.vocabSize - 1 })), (ids) => {
      const stream = new TextStream(tokenizer);
      const text = ids.map((id) => stream.push(id)).join("") + stream.flush();
      expect(text).toBe(tokenizer.decode(ids, { skipSpecial: true }));
    }),
  );
});

test.each([
  ["byte-level", smolLm2],
  ["SentencePiece", llama],
])("%s: characters come whole", (_, tokenizer) => {
  const stream = new TextStream(tokenizer);
  const pieces = tokenizer.encode("猫👩‍🚒é").map((id) => stream.push(id));
  expect(pieces).toContain("猫");
  expect(pieces).toContain("👩");
  expect(pieces.join("")).not.toContain("\ufffd");
  expect(pieces.join("") + stream.flush()).toBe("猫👩‍🚒é");
});

test("an incomplete character appears only at the end", () => {
  const stream = new TextStream(llama);
  const [space = 0, first = 0, second = 0] = llama.encode("猫");
  expect([stream.push(space), stream.push(first), stream.push(second)]).toEqual(["", "", ""]);
  expect(stream.flush()).toBe("\ufffd");
});

test("the leading space of a SentencePiece text is stripped, others are kept", () => {
  const stream = new TextStream(llama);
  expect([261, 261].map((id) => stream.push(id))).toEqual(["a", " a"]);
});
