import { expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { argMax, logSumExp } from "../../../src/tensor/ops/reduce.ts";

test("logSumExp of numbers whose exponentials overflow or underflow", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2, 2]);
  const feeds = { x: ndarray("float32", [2, 2], Float32Array.of(1000, 1000, -1000, -1001)) };
  const { y } = await evaluate(graph, { y: logSumExp(x) }, feeds);
  expect(y.shape).toEqual([2, 1]);
  expect(y.data[0]).toBeCloseTo(1000 + Math.LN2, 3);
  expect(y.data[1]).toBeCloseTo(-1000 + Math.log(1 + Math.exp(-1)), 3);
});

test("argMax returns the index of the largest element of each row, the first of equal ones", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["rows", 3]);
  const feeds = { x: ndarray("float32", [3, 3], Float32Array.of(1, 3, 2, -1, -5, -1, 0, 0, 7)) };
  const { y } = await evaluate(graph, { y: argMax(x) }, feeds);
  expect(y.shape).toEqual([3]);
  expect([...(y.data as BigInt64Array)]).toEqual([1n, 0n, 2n]);
});
