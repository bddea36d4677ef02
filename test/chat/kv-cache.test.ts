import fc from "fast-check";
import { expect, test } from "vitest";
import { KVCache } from "../../src/chat/kv-cache.ts";
import { masked } from "../../src/nn/attention.ts";
import { ndarray } from "../../src/tensor/array.ts";

const shape = { layers: 2, kvHeads: 3, headDim: 2 };

/** A number that tells layer, sequence, head, element and position. */
const mark = (layer: number, sequence: number, head: number, element: number, position: number) =>
  (((layer * 4 + sequence) * 4 + head) * 4 + element) * 1000 + position;

/** What the engine gives for positions `from` to `from + count`: keys [batch, heads, headDim, n], values transposed. */
function outputs(sequences: readonly number[], from: number, count: number) {
  const { kvHeads, headDim, layers } = shape;
  const result: Record<string, ReturnType<typeof ndarray<"float32">>> = {};
  for (let layer = 0; layer < layers; layer++) {
    const keys: number[] = [];
    const values: number[] = [];
    for (const sequence of sequences) {
      for (let head = 0; head < kvHeads; head++) {
        for (let element = 0; element < headDim; element++) {
          for (let i = 0; i < count; i++) keys.push(mark(layer, sequence, head, element, from + i));
        }
        for (let i = 0; i < count; i++) {
          for (let element = 0; element < headDim; element++)
            values.push(mark(layer, sequence, head, element, from + i));
        }
      }
    }
    const sizes = [sequences.length, kvHeads];
    result[`newKeys.${layer}`] = ndarray("float32", [...sizes, headDim, count], Float32Array.from(keys));
    result[`newValues.${layer}`] = ndarray("float32", [...sizes, count, headDim], Float32Array.from(values));
  }
  return result;
}

function expectHeld(cache: KVCache, sequences: readonly number[]): void {
  const feeds = cache.feeds();
  const capacity = feeds.pastMask?.shape[1] as number;
  const { kvHeads, headDim, layers } = shape;
  const mask = Array.from({ length: capacity }, (_, position) => (position < cache.length ? 0 : Math.fround(masked)));
  expect(Array.from(feeds.pastMask?.data ?? [], Number)).toEqual(sequences.flatMap(() => mask));
  const [keys, values, expected]: [number[], number[], number[]] = [[], [], []];
  for (let layer = 0; layer < layers; layer++) {
    const [keyData, valueData] = [feeds[`keys.${layer}`]?.data, feeds[`values.${layer}`]?.data] as Float32Array[];
    for (const [row, sequence] of sequences.entries()) {
      for (let head = 0; head < kvHeads; head++) {
        const start = (row * kvHeads + head) * headDim * capacity;
        for (let element = 0; element < headDim; element++) {
          for (let position = 0; position < cache.length; position++) {
            expected.push(mark(layer, sequence, head, element, position));
            keys.push(keyData?.[start + element * capacity + position] as number);
            values.push(valueData?.[start + position * headDim + element] as number);
          }
        }
      }
    }
  }
  expect(keys).toEqual(expected);
  expect(values).toEqual(expected);
}

test("holds what was appended, over growing, forgetting and choosing sequences", () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ append: fc.constantFrom(1, 2, 40, 70) }) },
    fc.record({ truncate: fc.nat(150) }),
    fc.record({ select: fc.array(fc.nat(1), { minLength: 1, maxLength: 3 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
      let sequences = [0, 1];
      let cache = new KVCache(shape, 2);
      for (const step of steps) {
        if ("append" in step) {
          cache.append(outputs(sequences, cache.length, step.append), step.append);
        } else if ("truncate" in step) {
          const expected = Math.min(cache.length, step.truncate);
          cache.truncate(step.truncate);
          expect(cache.length).toBe(expected);
        } else {
          const order = step.select.map((i) => i % sequences.length);
          cache = cache.select(order);
          sequences = order.map((i) => sequences[i] as number);
        }
      }
      expect(cache.batch).toBe(sequences.length);
      expectHeld(cache, sequences);
    }),
    { numRuns: 40 },
  );
});

test("a chosen cache is a copy", () => {
  const cache = new KVCache(shape, 1);
  cache.append(outputs([0], 0, 2), 2);
  const copy = cache.select([0, 0]);
  copy.append(outputs([3, 3], 2, 1), 1);
  expect(cache.length).toBe(2);
  expectHeld(cache, [0]);
});
