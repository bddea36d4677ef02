/** Sessions whose models are on disk and share a file of constants. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ConstantsFile } from "../../src/runtime/model-files.ts";
import { Session } from "../../src/runtime/session.ts";
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

test("constants with the same name are loaded and written once; each session can run several times", async () => {
  const loaded: string[] = [];
  const [forward, backward] = [network(loaded), network(loaded)];
  const constants = await ConstantsFile.create(folder);
  const storage = (name: string) => ({ storage: { model: join(folder, name), constants } });
  const once = await Session.create(forward.graph, { y: forward.once }, storage("forward.onnx"));
  const outputs = { y: backward.once, z: backward.twice() };
  const twice = await Session.create(backward.graph, outputs, storage("backward.onnx"));
  await constants.close();
  expect(loaded).toEqual(["first", "second"]);
  expect((await readdir(folder)).sort()).toEqual(["backward.onnx", "forward.onnx", "model.weights"]);
  expect((await stat(join(folder, "model.weights"))).size).toBe(2 * 64 * 64 * 4);
  const feeds = { x: ndarray("float32", [1, 64], new Float32Array(64).fill(1)) };
  for (let time = 0; time < 2; time++) {
    const { y } = await once.run(feeds);
    expect(y.data[0]).toBe(64);
    const results = await twice.run(feeds);
    expect([results.y.data[0], results.z.data[0]]).toEqual([64, 128]);
  }
});
