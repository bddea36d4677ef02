import fc from "fast-check";
import { expect, test } from "vitest";
import { Context, fitContext } from "../../src/chat/context.ts";
import { byteTokenizer, tinyLanguageModel } from "./tiny-llama.ts";

const picture = [new Float32Array(16).fill(0.5), new Float32Array(16).fill(-0.25)];

test("the oldest positions are dropped when a text is too long for its answer", () => {
  expect(fitContext([1, 2, 3, 4, 5], 2, 7)).toEqual([1, 2, 3, 4, 5]);
  expect(fitContext([1, 2, 3, 4, 5], 2, 5)).toEqual([3, 4, 5]);
  fc.assert(
    fc.property(fc.array(fc.nat(9), { minLength: 1 }), fc.integer({ min: 1, max: 20 }), (sequence, maxNewTokens) => {
      const kept = fitContext(sequence, maxNewTokens, 21);
      expect(kept).toEqual(sequence.slice(sequence.length - kept.length));
      expect(kept.length).toBe(Math.min(sequence.length, 21 - maxNewTokens));
    }),
  );
});

test("what is left to read, read over the cache, gives the scores of the whole", async () => {
  const model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const context = new Context(model);
  const beginning = [256, 1, ...picture, 2, 3];
  for (const sequence of [
    beginning,
    [...beginning, 7, 8],
    [...beginning, 7, 9, 10],
    [...beginning, 7, 9, 10],
    [256, 1, picture[0] as Float32Array, 4],
    [256, 1, Float32Array.from(picture[0] as Float32Array).fill(2), 4],
    [5],
  ]) {
    const rest = context.advance(sequence);
    expect(rest).toEqual(sequence.slice(sequence.length - rest.length));
    const { data } = await model.read([rest], context.cache);
    const whole = await model.read([sequence], model.newCache());
    data.forEach((score, id) => {
      expect(score).toBeCloseTo(whole.data[id] as number, 4);
    });
  }
  await model.release();
});

test("only the part that differs is read again", async () => {
  const model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const context = new Context(model);
  await model.read([context.advance([1, 2, ...picture, 3])], context.cache);
  // What was read beyond the sequence (an answer) is forgotten.
  await model.read([[4]], context.cache);
  expect(context.advance([1, 2, ...picture, 3, 5, 6])).toEqual([5, 6]);
  // If reading failed, the cache is shorter than the sequence that was announced.
  expect(context.advance([1, 2, ...picture, 3, 5, 6])).toEqual([5, 6]);
  expect(context.advance([1, 2, ...picture, 3])).toEqual([3]);
  await model.release();
});
