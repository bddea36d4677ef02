/** The engine's operator against the same attention put together from others. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { cachedAttention, causalMask, joinHeads, masked, splitHeads } from "../../../src/nn/attention.ts";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph, type Value } from "../../../src/tensor/graph.ts";
import { groupQueryAttention } from "../../../src/tensor/ops/attention.ts";
import { Random } from "../../../src/tensor/random.ts";
import { normal } from "../../helpers/weights-in-memory.ts";

test("equals plain attention over the used part of a cache", async () => {
  const sizes = fc.record({
    kvHeads: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 3 }),
    headDim: fc.integer({ min: 1, max: 5 }).map((eighth) => 8 * eighth),
    used: fc.integer({ min: 0, max: 20 }),
    spare: fc.integer({ min: 0, max: 20 }),
    m: fc.integer({ min: 1, max: 40 }),
    seed: fc.nat(),
  });
  await fc.assert(
    fc.asyncProperty(sizes, async ({ kvHeads, group, headDim, used, spare, m, seed }) => {
      const [heads, capacity] = [kvHeads * group, used + spare];
      const random = new Random(seed);
      const mask = Float32Array.from({ length: capacity }, (_, i) => (i < used ? 0 : masked));
      const positions = BigInt64Array.from({ length: m }, (_, i) => BigInt(used + i));
      const feeds = {
        q: normal([1, m, heads * headDim], random),
        k: normal([1, m, kvHeads * headDim], random),
        v: normal([1, m, kvHeads * headDim], random),
        keys: normal([1, kvHeads, capacity, headDim], random),
        values: normal([1, kvHeads, capacity, headDim], random),
        mask: ndarray("float32", [1, capacity], mask),
        positions: ndarray("int64", [1, m], positions),
      };
      const graph = new Graph();
      const input = (name: keyof typeof feeds, ...shape: (string | number)[]) =>
        graph.input(name, feeds[name].dtype, shape);
      const [q, k, v] = (["q", "k", "v"] as const).map((name) => input(name, 1, "m", feeds[name].shape[2] ?? 0)) as [
        Value,
        Value,
        Value,
      ];
      const [keys, values] = (["keys", "values"] as const).map((name) =>
        input(name, 1, kvHeads, "capacity", headDim),
      ) as [Value, Value];
      const place = input("positions", 1, "m");
      const one = groupQueryAttention({ q, k, v, positions: place, keys, values });
      const [newKeys, newValues] = [splitHeads(k, kvHeads), splitHeads(v, kvHeads)];
      const whole = causalMask(graph, "m", input("mask", 1, "capacity"));
      const past = { keys, values, mask: whole };
      const many = joinHeads(cachedAttention(splitHeads(q, heads), newKeys, newValues, past));
      const found = await evaluate(graph, { a: one.out, b: one.keys, c: one.values, many, newKeys, newValues }, feeds, {
        threads: 1,
        device: "cpu",
      });
      for (const [own, expected] of [
        [found.a, found.many],
        [found.b, found.newKeys],
        [found.c, found.newValues],
      ] as const) {
        expect(own.shape).toEqual(expected.shape);
        const differences = (own.data as Float32Array).map((value, i) => Math.abs(value - Number(expected.data[i])));
        expect(Math.max(...differences)).toBeLessThan(1e-5);
      }
    }),
    { numRuns: 40 },
  );
});

test("rejects several sequences and heads that do not match", () => {
  const graph = new Graph();
  const of = (name: string, ...shape: (string | number)[]) => graph.input(name, "float32", shape);
  const inputs = {
    q: of("q", 1, "m", 32),
    k: of("k", 1, "m", 16),
    v: of("v", 1, "m", 16),
    positions: graph.input("positions", "int64", [1, "m"]),
    keys: of("keys", 1, 2, "past", 8),
    values: of("values", 1, 2, "past", 8),
  };
  expect(groupQueryAttention(inputs).out.shape).toEqual([1, "m", 32]);
  const refused = (other: Partial<typeof inputs>) => expect(() => groupQueryAttention({ ...inputs, ...other }));
  refused({ q: of("two", 2, "m", 32) }).toThrow("expected one sequence");
  refused({ k: of("wide", 1, "m", 24) }).toThrow("the numbers of heads do not match");
  refused({ q: of("odd", 1, "m", 24) }).toThrow("the numbers of heads do not match");
  const small = { q: of("small", 1, "m", 12), k: of("smallKeys", 1, "m", 12), keys: of("smallPast", 1, 2, "past", 6) };
  refused(small).toThrow("a multiple of 8");
});
