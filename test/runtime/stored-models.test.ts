/** Models that share a file of constants. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { StoredModels } from "../../src/runtime/session.ts";
import { bytesOf, ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-stored-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** x [rows, 64] times a matrix, and times another one that only the second model has. */
function network(loaded: string[]) {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["rows", 64]);
  const matrix = (name: string, element: number) =>
    graph.weight(name, "float32", [64, 64], () => {
      loaded.push(name);
      return bytesOf(new Float32Array(64 * 64).fill(element));
    });
  return { graph, once: matmul(x, matrix("first", 1)), twice: () => matmul(x, matrix("second", 2)) };
}

test("constants of one name are loaded and written once; each model can be used again and again", async () => {
  const loaded: string[] = [];
  const [forward, backward] = [network(loaded), network(loaded)];
  const models = await StoredModels.write<{ forward: "y"; backward: "y" | "z" }>(folder, {
    forward: { graph: forward.graph, outputs: { y: forward.once } },
    backward: { graph: backward.graph, outputs: { y: backward.once, z: backward.twice() } },
  });
  expect(loaded).toEqual(["first", "second"]);
  expect((await readdir(folder)).sort()).toEqual(["backward.onnx", "forward.onnx", "model.weights"]);
  expect((await stat(join(folder, "model.weights"))).size).toBe(2 * 64 * 64 * 4);
  const feeds = { x: ndarray("float32", [1, 64], new Float32Array(64).fill(1)) };
  for (let time = 0; time < 2; time++) {
    const { y } = await models.with("forward", {}, (session) => session.run(feeds));
    expect(y.data[0]).toBe(64);
    const results = await models.with("backward", {}, (session) => session.run(feeds));
    expect([results.y.data[0], results.z.data[0]]).toEqual([64, 128]);
  }
});
