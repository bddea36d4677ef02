import fc from "fast-check";
import { expect, test } from "vitest";
import { attention, cachedAttention, causalMask, joinHeads, masked, splitHeads } from "../../src/nn/attention.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { slice } from "../../src/tensor/ops/layout.ts";
import { Random } from "../../src/tensor/random.ts";
import { normal } from "../helpers/weights-in-memory.ts";

interface Sizes {
  readonly batch: number;
  readonly kvHeads: number;
  readonly group: number;
  readonly m: number;
  readonly n: number;
  readonly size: number;
}

/** Attention in loops over query heads, positions and elements. */
function naive({ batch, kvHeads, group, m, n, size }: Sizes, q: NdArray, k: NdArray, v: NdArray, mask: number[][]) {
  const out: number[] = [];
  const at = (x: NdArray, b: number, head: number, heads: number, position: number, length: number, e: number) =>
    Number(x.data[((b * heads + head) * length + position) * size + e]);
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < kvHeads * group; head++) {
      const kvHead = Math.floor(head / group);
      for (let i = 0; i < m; i++) {
        const weights = Array.from({ length: n }, (_, j) => {
          let score = 0;
          for (let e = 0; e < size; e++) {
            score += at(q, b, head, kvHeads * group, i, m, e) * at(k, b, kvHead, kvHeads, j, n, e);
          }
          return Math.exp(score / Math.sqrt(size) + (mask[i]?.[j] ?? 0));
        });
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (let e = 0; e < size; e++) {
          out.push(weights.reduce((sum, weight, j) => sum + weight * at(v, b, kvHead, kvHeads, j, n, e), 0) / total);
        }
      }
    }
  }
  return out;
}

function expectClose(found: ArrayLike<number | bigint>, expected: ArrayLike<number>): void {
  expect(found.length).toBe(expected.length);
  const largest = Math.max(...Array.from(expected, (value, i) => Math.abs(Number(found[i]) - value)));
  expect(largest).toBeLessThan(1e-5);
}

const small = fc.integer({ min: 1, max: 3 });
const sizes = fc.record({ batch: small, kvHeads: small, group: small, m: small, n: small, size: small });

test("grouped-query attention matches a plain loop", async () => {
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(), async (sizes, seed) => {
      const { batch, kvHeads, group, m, n, size } = sizes;
      const random = new Random(seed);
      const arrays = {
        q: normal([batch, kvHeads * group, m, size], random),
        k: normal([batch, kvHeads, n, size], random),
        v: normal([batch, kvHeads, n, size], random),
        mask: normal([1, 1, m, n], random),
      };
      const graph = new Graph();
      const input = (name: keyof typeof arrays) => graph.input(name, "float32", arrays[name].shape);
      const y = attention(input("q"), input("k"), input("v"), input("mask"));
      const { y: found } = await evaluate(graph, { y }, arrays);
      const mask = Array.from({ length: m }, (_, i) => [...arrays.mask.data.subarray(i * n, (i + 1) * n)]);
      expect(found.shape).toEqual(arrays.q.shape);
      expectClose(found.data, naive(sizes, arrays.q, arrays.k, arrays.v, mask));
    }),
    { numRuns: 15 },
  );
});

test("attention over a partly used cache matches causal attention over the whole sequence", async () => {
  await fc.assert(
    fc.asyncProperty(
      sizes,
      fc.nat(4),
      fc.nat(3),
      fc.nat(),
      async ({ batch, kvHeads, group, m, size }, past, room, seed) => {
        const random = new Random(seed);
        const total = past + m;
        const whole = {
          q: normal([batch, kvHeads * group, m, size], random),
          k: normal([batch, kvHeads, total, size], random),
          v: normal([batch, kvHeads, total, size], random),
        };
        const graph = new Graph();
        const [q, k, v] = (["q", "k", "v"] as const).map((name) =>
          graph.input(name, "float32", ["batch", ...whole[name].shape.slice(1)]),
        ) as [Value, Value, Value];
        const hidden = Array.from({ length: m }, (_, i) =>
          Array.from({ length: total }, (_, j) => (j > past + i ? masked : 0)),
        );
        const full = attention(
          q,
          k,
          v,
          graph.constant(ndarray("float32", [1, 1, m, total], Float32Array.from(hidden.flat()))),
        );

        // The cache has room for more than it holds; what lies there must not matter.
        const capacity = past + room;
        const junk = normal([1, kvHeads, room, size], random);
        const filled = (x: Value) => {
          const held = slice(x, 2, 0, past);
          const rest = graph
            .constant(junk)
            .add(held.graph.constant(ndarray("float32", [batch, 1, 1, 1], new Float32Array(batch))));
          return { held, rest };
        };
        const keys = filled(k);
        const values = filled(v);
        const join = ({ held, rest }: { held: Value; rest: Value }) =>
          graph.node("Concat", [held, rest], [{ dtype: "float32", shape: [held.dim(0), kvHeads, capacity, size] }], {
            attributes: { axis: 2 },
          })[0] as Value;
        const used = Float32Array.from({ length: batch * capacity }, (_, i) => (i % capacity < past ? 0 : masked));
        const pastMask = graph.input("pastMask", "float32", ["batch", capacity]);
        const cached = cachedAttention(q, slice(k, 2, past), slice(v, 2, past), {
          keys: join(keys),
          values: join(values),
          mask: causalMask(graph, m, pastMask),
        });
        const feeds = { ...whole, pastMask: ndarray("float32", [batch, capacity], used) };
        const found = await evaluate(graph, { full, cached }, feeds);
        expectClose(found.cached.data, Array.from(found.full.data, Number));
      },
    ),
    { numRuns: 15 },
  );
});

test("joinHeads inverts splitHeads; unequal heads are rejected", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["batch", "sequence", 6]);
  const heads = splitHeads(x, 2);
  expect(heads.shape).toEqual(["batch", 2, "sequence", 3]);
  const array = normal([2, 3, 6], 1);
  expect((await evaluate(graph, { y: joinHeads(heads) }, { x: array })).y.data).toEqual(array.data);
  expect(() => graph.scope("layer", () => splitHeads(x, 4))).toThrow(
    'in layer: "x" float32 [batch, sequence, 6] cannot be split into 4 heads',
  );
  expect(() => attention(splitHeads(x, 3), splitHeads(x, 2), splitHeads(x, 2))).toThrow(
    "3 query heads are not a multiple of 2 key heads",
  );
});
