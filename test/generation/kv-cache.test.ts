import fc from "fast-check";
import { expect, test } from "vitest";
import { KVCache } from "../../src/generation/kv-cache.ts";
import { masked } from "../../src/nn/attention.ts";
import { ndarray } from "../../src/tensor/array.ts";

const shape = { layers: 2, kvHeads: 3, headDim: 2 };

/** A number that tells layer, sequence, head, element and position. */
const mark4 = (layer: number, sequence: number, head: number, element: number, position: number) =>
  (((layer * 4 + sequence) * 4 + head) * 4 + element) * 1000 + position;

/** What the engine gives for `count` positions after those that each sequence has: [batch, heads, n, headDim]. */
function outputs(sequences: readonly { mark: number; length: number }[], count: number) {
  const { kvHeads, headDim, layers } = shape;
  const result: Record<string, ReturnType<typeof ndarray<"float32">>> = {};
  for (let layer = 0; layer < layers; layer++) {
    const keys: number[] = [];
    const values: number[] = [];
    for (const { mark, length: from } of sequences) {
      for (let head = 0; head < kvHeads; head++) {
        for (let i = 0; i < count; i++) {
          for (let element = 0; element < headDim; element++) {
            keys.push(mark4(layer, mark, head, element, from + i));
            values.push(-mark4(layer, mark, head, element, from + i));
          }
        }
      }
    }
    const sizes = [sequences.length, kvHeads, count, headDim];
    result[`newKeys.${layer}`] = ndarray("float32", sizes, Float32Array.from(keys));
    result[`newValues.${layer}`] = ndarray("float32", sizes, Float32Array.from(values));
  }
  return result;
}

/** Sequences by their marks, each with its length. */
function expectHeld(cache: KVCache, sequences: readonly { mark: number; length: number }[]): void {
  expect(cache.lengths).toEqual(sequences.map(({ length }) => length));
  const feeds = cache.feeds();
  const capacity = feeds.pastMask?.shape[1] as number;
  const { kvHeads, headDim, layers } = shape;
  const mask = sequences.flatMap(({ length }) =>
    Array.from({ length: capacity }, (_, position) => (position < length ? 0 : Math.fround(masked))),
  );
  expect(Array.from(feeds.pastMask?.data ?? [], Number)).toEqual(mask);
  const [keys, values, expected]: [number[], number[], number[]] = [[], [], []];
  for (let layer = 0; layer < layers; layer++) {
    const [keyData, valueData] = [feeds[`keys.${layer}`]?.data, feeds[`values.${layer}`]?.data] as Float32Array[];
    expect(keyData).toHaveLength(sequences.length * kvHeads * headDim * capacity);
    for (const [row, sequence] of sequences.entries()) {
      for (let head = 0; head < kvHeads; head++) {
        const start = (row * kvHeads + head) * headDim * capacity;
        for (let element = 0; element < headDim; element++) {
          for (let position = 0; position < sequence.length; position++) {
            expected.push(mark4(layer, sequence.mark, head, element, position));
            keys.push(keyData?.[start + position * headDim + element] as number);
            values.push(-(valueData?.[start + position * headDim + element] as number));
          }
        }
      }
    }
  }
  expect(keys).toEqual(expected);
  expect(values).toEqual(expected);
}

test("keeps appended positions through growing, truncating, selecting, adding and removing sequences", () => {
  const row = fc.nat(3);
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ append: fc.constantFrom(1, 2, 40, 70) }) },
    fc.record({ truncate: fc.nat(150) }),
    fc.record({ select: fc.array(row, { minLength: 1, maxLength: 3 }), length: fc.option(fc.nat(60)) }),
    fc.record({ push: fc.nat(90), mark: row }),
    fc.record({ remove: row }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 10 }), (steps) => {
      let sequences = [
        { mark: 0, length: 0 },
        { mark: 1, length: 0 },
      ];
      let cache = new KVCache(shape, 2);
      for (const step of steps) {
        if ("append" in step) {
          cache.append(outputs(sequences, step.append), step.append);
          sequences = sequences.map(({ mark, length }) => ({ mark, length: length + step.append }));
        } else if ("truncate" in step) {
          cache.truncate(step.truncate);
          sequences = sequences.map(({ mark, length }) => ({ mark, length: Math.min(length, step.truncate) }));
        } else if ("select" in step) {
          if (sequences.length === 0) continue;
          const order = step.select.map((i) => i % sequences.length);
          const limit = step.length ?? Number.POSITIVE_INFINITY;
          cache = cache.select(order, limit);
          sequences = order.map((i) => {
            const { mark, length } = sequences[i] as (typeof sequences)[number];
            return { mark, length: Math.min(length, limit) };
          });
        } else if ("push" in step) {
          const other = new KVCache(shape);
          const added = { mark: step.mark, length: step.push };
          if (step.push > 0) other.append(outputs([{ mark: step.mark, length: 0 }], step.push), step.push);
          cache.push(other);
          sequences = [...sequences, added];
        } else if (sequences.length > 0) {
          const taken = step.remove % sequences.length;
          cache.remove(taken);
          const last = sequences[sequences.length - 1] as (typeof sequences)[number];
          sequences = sequences.map((sequence, i) => (i === taken ? last : sequence)).slice(0, -1);
        }
      }
      expect(cache.batch).toBe(sequences.length);
      expect(cache.length).toBe(Math.max(0, ...sequences.map(({ length }) => length)));
      expectHeld(cache, sequences);
    }),
    { numRuns: 100 },
  );
});

test("a selected cache is a copy", () => {
  const cache = new KVCache(shape, 1);
  cache.append(outputs([{ mark: 0, length: 0 }], 2), 2);
  const copy = cache.select([0, 0]);
  copy.append(
    outputs(
      [
        { mark: 3, length: 2 },
        { mark: 3, length: 2 },
      ],
      1,
    ),
    1,
  );
  expectHeld(cache, [{ mark: 0, length: 2 }]);
});

test("the capacity shrinks when the longest sequence is removed", () => {
  const cache = new KVCache(shape, 2);
  cache.append(
    outputs(
      [
        { mark: 0, length: 0 },
        { mark: 1, length: 0 },
      ],
      10,
    ),
    10,
  );
  const long = new KVCache(shape);
  long.append(outputs([{ mark: 2, length: 0 }], 300), 300);
  const before = cache.feeds().pastMask?.shape[1];
  cache.push(long);
  expect(cache.feeds().pastMask?.shape[1]).toBeGreaterThanOrEqual(300);
  cache.remove(2);
  expect(cache.feeds().pastMask?.shape[1]).toBe(before);
  expectHeld(cache, [
    { mark: 0, length: 10 },
    { mark: 1, length: 10 },
  ]);
});
