/** Sessions that load their model for each run, with constants mapped from the files that hold them. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { evaluate, Session } from "../../src/runtime/session.ts";
import { bytesOf, type NdArray, ndarray } from "../../src/tensor/array.ts";
import { type FileRange, Graph } from "../../src/tensor/graph.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { Random } from "../../src/tensor/random.ts";
import { largestDifference } from "../helpers/deviations.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const [rows, columns] = [64, 48];
const random = new Random(5);
const matrix = Float32Array.from({ length: rows * columns }, () => random.normal());

function product(stored?: FileRange) {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["n", columns]);
  let loads = 0;
  const load = async () => {
    loads++;
    return bytesOf(matrix);
  };
  const w = graph.weight("w", "float32", [rows, columns], load, stored);
  return { graph, outputs: { y: matmul(x, w, { transB: true }) }, loaded: () => loads };
}

const feeds = (n: number): Record<string, NdArray> => ({
  x: ndarray(
    "float32",
    [n, columns],
    Float32Array.from({ length: n * columns }, (_, i) => Math.sin(i)),
  ),
});

/** Writes the matrix somewhere in the midst of a file. */
function write(path: string): FileRange {
  const before = Buffer.alloc(4096 + 64);
  writeFileSync(path, Buffer.concat([before, Buffer.from(bytesOf(matrix))]));
  return { path, offset: before.length, length: matrix.byteLength };
}

test("a stored constant is mapped in each run, and never loaded", async () => {
  const path = join(folder, "below", "weights.bin");
  mkdirSync(join(folder, "below"));
  const { graph, outputs, loaded } = product(write(path));
  const model = await Session.create(graph, outputs, { storage: "mapped", weightsFolder: folder, threads: 1 });
  for (const n of [1, 7, 3]) {
    const { graph: plain, outputs: same } = product();
    const { y } = await evaluate(plain, same, feeds(n));
    const found = (await model.run(feeds(n))).y;
    expect(found.shape).toEqual(y.shape);
    expect(largestDifference(found.data as Float32Array, y.data as Float32Array)).toBeLessThan(1e-4);
  }
  expect(loaded()).toBe(0);
  // Nothing is kept between runs: without the file, a run fails.
  rmSync(path);
  await expect(model.run(feeds(1))).rejects.toThrow("weights.bin");
  await model.close();
});

test("constants outside of the folder, and those that are not stored, are kept in memory", async () => {
  const inside = join(folder, "inside");
  mkdirSync(inside);
  for (const stored of [write(join(folder, "outside.bin")), undefined]) {
    const { graph, outputs, loaded } = product(stored);
    const model = await Session.create(graph, outputs, { storage: "mapped", weightsFolder: inside, threads: 1 });
    const { graph: plain, outputs: same } = product();
    const { y } = await evaluate(plain, same, feeds(2));
    const found = (await model.run(feeds(2))).y.data as Float32Array;
    expect(largestDifference(found, y.data as Float32Array)).toBeLessThan(1e-4);
    expect(loaded()).toBe(1);
  }
});
