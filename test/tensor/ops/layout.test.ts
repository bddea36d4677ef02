import fc from "fast-check";
import { expect, test } from "vitest";
import { Session } from "../../../src/runtime/session.ts";
import { ndarray, sizeOf } from "../../../src/tensor/array.ts";
import { Graph, type Value } from "../../../src/tensor/graph.ts";
import {
  concat,
  dimScalar,
  expand,
  padZeros,
  reshape,
  slice,
  split,
  transpose,
  zerosOf,
} from "../../../src/tensor/ops/layout.ts";
import { addDims, type Dim, mulDims } from "../../../src/tensor/shapes.ts";

const count = (shape: readonly number[]) =>
  ndarray(
    "float32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, (_, i) => i + 1),
  );

/** Runs a graph over x ["batch", "sequence", 2] at several sizes; the results' shapes and values. */
async function results(build: (x: Value) => Value, sizes: readonly (readonly [number, number])[]) {
  const graph = new Graph();
  const y = build(graph.input("x", "float32", ["batch", "sequence", 2]));
  const session = await Session.create(graph, { y });
  const found = [];
  for (const [batch, sequence] of sizes) {
    const { shape, data } = (await session.run({ x: count([batch, sequence, 2]) })).y;
    found.push({ shape, values: Array.from(data, Number) });
  }
  await session.close();
  return found;
}

test("symbolic shapes are computed when the graph runs", async () => {
  const flat: Dim = mulDims("batch", "sequence");
  const cases: [(x: Value) => Value, (batch: number, sequence: number) => number[]][] = [
    [(x) => reshape(x, [flat, 2]), (b, s) => [b * s, 2]],
    [(x) => reshape(x, [mulDims(2, flat)]), (b, s) => [2 * b * s]],
    [(x) => reshape(x, ["batch", 1, "sequence", 2, 1]), (b, s) => [b, 1, s, 2, 1]],
    [(x) => reshape(transpose(x, [1, 0, 2]), ["sequence", mulDims(2, "batch")]), (b, s) => [s, 2 * b]],
    [(x) => reshape(concat([x, x], 1), ["batch", mulDims(4, "sequence")]), (b, s) => [b, 4 * s]],
    [(x) => padZeros(x, 1, 1, "batch"), (b, s) => [b, s + 1 + b, 2]],
    [(x) => slice(x, 1, 1), (b, s) => [b, s - 1, 2]],
    [(x) => expand(slice(x, 1, 0, 1), ["batch", addDims("sequence", 3), 2]), (b, s) => [b, s + 3, 2]],
    [(x) => zerosOf(x.graph, ["sequence", "batch"]), (b, s) => [s, b]],
    [(x) => dimScalar(x.graph, addDims(flat, 1)), () => []],
  ];
  const sizes = [
    [2, 3],
    [1, 5],
    [3, 1],
  ] as const;
  for (const [build, shape] of cases) {
    const found = await results(build, sizes);
    expect(found.map((result) => result.shape)).toEqual(sizes.map(([b, s]) => shape(b, s)));
  }
  const [scalar] = await results((x) => dimScalar(x.graph, addDims(flat, 1)), [[2, 3]]);
  expect(scalar?.values).toEqual([7]);
});

test("concat restores the parts of a split axis", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 }), async (parts) => {
      const total = parts.reduce((sum, part) => sum + part, 0);
      const graph = new Graph();
      const x = graph.input("x", "float32", [2, total]);
      const bySplit = concat(split(x, -1, parts), -1);
      const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part, 0));
      const bySlice = concat(
        parts.map((part, i) => slice(x, 1, starts[i] as number, (starts[i] as number) + part)),
        1,
      );
      const session = await Session.create(graph, { bySplit, bySlice });
      const array = count([2, total]);
      const found = await session.run({ x: array });
      expect(found.bySplit.data).toEqual(array.data);
      expect(found.bySlice.data).toEqual(array.data);
      await session.close();
    }),
    { numRuns: 10 },
  );
});

test("reshape keeps an axis of size 0", async () => {
  const [empty] = await results((x) => reshape(slice(x, 1, 0, 0), ["batch", 0, 1, 2]), [[2, 3]]);
  expect(empty).toEqual({ shape: [2, 0, 1, 2], values: [] });
});

test("transpose permutes axes, padZeros adds zeros", async () => {
  const [turned] = await results((x) => transpose(x, [1, 2, 0]), [[2, 1]]);
  expect(turned).toEqual({ shape: [1, 2, 2], values: [1, 3, 2, 4] });
  const [padded] = await results((x) => padZeros(x, 2, 1, 2), [[1, 1]]);
  expect(padded).toEqual({ shape: [1, 1, 5], values: [0, 1, 2, 0, 0] });
});
