import fc from "fast-check";
import { expect, test } from "vitest";
import { ImageCache, PrefixCache } from "../../src/engine/caches.ts";
import type { ImageEncoder } from "../../src/generation/image-encoder.ts";
import type { Position } from "../../src/generation/language-model.ts";
import { byteTokenizer, tinyLanguageModel } from "../helpers/tiny-llama.ts";

const plenty = 2 ** 30;
const [image, other] = [new Float32Array(16).fill(0.5), new Float32Array(16).fill(0.5)];

test("the rest of a sequence over the cached prefix gives the logits of the whole", async () => {
  const model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const store = new PrefixCache(model, plenty);
  const position = fc.constantFrom<Position>(1, 2, image, other);
  await fc.assert(
    fc.asyncProperty(fc.array(position, { minLength: 1, maxLength: 6 }), async (sequence) => {
      const cache = store.take(sequence);
      expect(cache.length).toBeLessThan(sequence.length);
      const { data } = await model.forward([sequence.slice(cache.length)], cache);
      const whole = await model.forward([sequence], model.newCache());
      data.forEach((score, id) => {
        expect(score).toBeCloseTo(whole.data[id] as number, 4);
      });
      store.put(sequence, cache);
    }),
    { numRuns: 60 },
  );
  await model.close();
});

test("only the part that differs is computed; two continuations of one prefix do not take it from each other", async () => {
  const model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const store = new PrefixCache(model, plenty);
  const learn = async (sequence: Position[]) => {
    const cache = store.take(sequence);
    const known = cache.length;
    await model.forward([sequence.slice(known)], cache);
    store.put(sequence, cache);
    return known;
  };
  expect(await learn([1, 2, image, 3])).toBe(0);
  expect(await learn([1, 2, image, 4, 5])).toBe(3);
  expect(await learn([1, 2, image, 3, 6])).toBe(4);
  expect(await learn([1, 2, image, 4, 5, 7])).toBe(5);
  // The last position is always read, because its scores are wanted.
  expect(await learn([1, 2, image, 4, 5, 7])).toBe(5);
  // Equal numbers are not the same image.
  expect(await learn([1, 2, other, 3])).toBe(2);
  await model.close();
});

test("the least recently used prefix is dropped when memory is full, but never the latest", async () => {
  const model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const size = model.newCache().bytes;
  const knows = (store: PrefixCache, sequence: Position[]) => store.take([...sequence, 9]).length === sequence.length;
  const fill = async (store: PrefixCache, sequence: Position[]) => {
    const cache = model.newCache();
    await model.forward([sequence], cache);
    store.put(sequence, cache);
  };
  const two = new PrefixCache(model, 2 * size);
  for (const first of [1, 2, 3]) await fill(two, [first, 5]);
  expect([1, 2, 3].map((first) => knows(two, [first, 5]))).toEqual([false, true, true]);
  const none = new PrefixCache(model, 0);
  for (const first of [1, 2]) await fill(none, [first, 5]);
  expect([1, 2].map((first) => knows(none, [first, 5]))).toEqual([false, true]);
  await model.close();
});

test("image tokens are computed once, and the least recently used are dropped above maxBytes", async () => {
  const encoded: number[] = [];
  const encoder = {
    async encode({ width }: { readonly width: number }) {
      if (width === 0) throw new Error("cannot be encoded");
      encoded.push(width);
      return [new Float32Array(256)];
    },
    close: async () => {},
  } as unknown as ImageEncoder;
  const source = {
    key: async (image: unknown) => String(image),
    decode: async (image: unknown) => ({ width: Number(image), height: 1, data: new Uint8Array(3) }),
  };
  // Room for two images of a kB each.
  const cache = new ImageCache(encoder, source, 2500);
  const [one, again] = await Promise.all([cache.encode("1"), cache.encode("1")]);
  expect(again).toBe(one);
  await cache.encode("2");
  expect(await cache.encode("1")).toBe(one);
  await cache.encode("3");
  expect(await cache.encode("1")).toBe(one);
  expect(encoded).toEqual([1, 2, 3]);
  await cache.encode("2");
  expect(encoded).toEqual([1, 2, 3, 2]);
  // A failure is not kept.
  await expect(cache.encode("0")).rejects.toThrow("cannot be encoded");
  await expect(cache.encode("0")).rejects.toThrow("cannot be encoded");
});
