import { expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import { Random } from "../../../src/tensor/random.ts";
import { Dropout, dropoutMask } from "../../../src/training/stages/stage.ts";

test("a share becomes zero, and the mean stays", () => {
  const mask = dropoutMask(100_000, 0.3, new Random(1));
  const zeros = mask.filter((value) => value === 0).length / mask.length;
  expect(zeros).toBeCloseTo(0.3, 2);
  expect(mask.reduce((sum, value) => sum + value, 0) / mask.length).toBeCloseTo(1, 2);
});

test("masks are inputs: the same random numbers drop the same elements", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["images", 2, 5]);
  const dropout = new Dropout(graph, 0.5);
  const y = dropout.apply(dropout.apply(x));
  const run = async (seed: number) => {
    const array = ndarray("float32", [3, 2, 5], new Float32Array(30).fill(1));
    return [
      ...((await evaluate(graph, { y }, { x: array, ...dropout.feeds({ images: 3 }, new Random(seed)) })).y
        .data as Float32Array),
    ];
  };
  const first = await run(7);
  expect(new Set(first)).toEqual(new Set([0, 4]));
  expect(await run(7)).toEqual(first);
  expect(await run(8)).not.toEqual(first);
});

test("without a share nothing is added to the graph", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["images", 2]);
  expect(new Dropout(graph, 0).apply(x)).toBe(x);
});
