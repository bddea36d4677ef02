import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { executionProviders } from "../../src/runtime/environment.ts";
import { constantsInMemory, writeModel } from "../../src/runtime/onnx.ts";
import { evaluate, Session } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph, type Value } from "../../src/tensor/graph.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";

const vector = (...values: number[]) => ndarray("float32", [values.length], Float32Array.from(values));

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "session-"));
  for (const name of ["TMPDIR", "TEMP", "TMP"]) vi.stubEnv(name, folder);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

/** x [n, 64] times a constant of 64 x 64 values, 16 kB. */
function large(load?: () => Uint8Array) {
  const graph = new Graph();
  const values = Float32Array.from({ length: 64 * 64 }, (_, i) => (i % 7) - 3);
  const array = ndarray("float32", [64, 64], values);
  const weight = load ? graph.weight("w", "float32", [64, 64], load) : graph.constant(array, "w");
  const x = graph.input("x", "float32", ["n", 64]);
  const expected = Float32Array.from({ length: 64 }, (_, column) => values[column] as number);
  const feeds = {
    x: ndarray(
      "float32",
      [1, 64],
      Float32Array.from({ length: 64 }, (_, i) => (i === 0 ? 1 : 0)),
    ),
  };
  return { graph, y: matmul(x, weight), feeds, expected };
}

describe("large constants", () => {
  test("are stored in a second file, aligned to pages", async () => {
    const { graph, y, feeds, expected } = large();
    const other = graph.constant(ndarray("float32", [1100], new Float32Array(1100).fill(2)), "other");
    const outputs = { out: y, copy: other.mul(1) };
    const external = constantsInMemory(graph, Object.values(outputs), "m.weights");
    const model = await writeModel(graph, outputs, external);
    const weights = Buffer.from(external.data.buffer);
    expect(model.byteLength).toBeLessThan(2000);
    expect(weights.byteLength).toBe(16384 + 4400);
    expect(weights.readFloatLE(16384)).toBe(2);
    await writeFile(join(folder, "m.weights"), weights);
    await writeFile(join(folder, "m.onnx"), model);
    const session = await InferenceSession.create(join(folder, "m.onnx"));
    const found = await session.run({ x: new Tensor("float32", feeds.x.data, [1, 64]) });
    expect(found.out?.data).toEqual(expected);
    expect(found.copy?.data).toEqual(new Float32Array(1100).fill(2));
    await session.release();
  });

  test("leave no temporary files, also after an error", async () => {
    const { graph, y, feeds, expected } = large();
    const session = await Session.create(graph, { y });
    expect((await session.run(feeds)).y.data).toEqual(expected);
    await session.close();
    expect(await readdir(folder)).toEqual([]);

    const broken = large(() => {
      throw new Error("the disk is gone");
    });
    await expect(Session.create(broken.graph, { y: broken.y })).rejects.toThrow("the disk is gone");
    const short = large(() => new Uint8Array(10));
    await expect(Session.create(short.graph, { y: short.y })).rejects.toThrow(
      'Constant "w" float32 [64, 64] has 10 bytes, expected 16384',
    );
    const invalid = large();
    const [odd] = invalid.graph.node("NoSuchOperator", [invalid.y], [{ dtype: "float32", shape: ["n", 64] }]) as [
      Value,
    ];
    await expect(Session.create(invalid.graph, { odd })).rejects.toThrow(/NoSuchOperator/);
    expect(await readdir(folder)).toEqual([]);
  });

  test("of a killed process are deleted later, and nothing else", async () => {
    const hours = (count: number) => new Date(Date.now() - count * 3_600_000);
    for (const [name, age, fileAge] of [
      ["minigpt4-engine-old", 2, 2],
      ["minigpt4-engine-writing", 2, 0.5],
      ["minigpt4-engine-young", 0.5, 0.5],
      ["mine", 2, 2],
    ] as const) {
      await mkdir(join(folder, name));
      await writeFile(join(folder, name, "model.weights"), "half of a model");
      await utimes(join(folder, name, "model.weights"), hours(fileAge), hours(fileAge));
      await utimes(join(folder, name), hours(age), hours(age));
    }
    const { graph, y } = large();
    await (await Session.create(graph, { y })).close();
    expect((await readdir(folder)).sort()).toEqual(["mine", "minigpt4-engine-writing", "minigpt4-engine-young"]);
  });

  test("that no output depends on are never loaded", async () => {
    const { graph } = large(() => {
      throw new Error("read");
    });
    const x = graph.inputs[0] as Value;
    const session = await Session.create(graph, { y: x.add(1) });
    await session.close();
  });
});

describe("arrays that do not match the inputs are rejected", () => {
  const graph = new Graph();
  const a = graph.input("a", "float32", ["batch", 2]);
  const b = graph.input("b", "int64", ["batch"]);
  const outputs = { y: a.add(1), z: b.add(1) };
  const good = { a: ndarray("float32", [1, 2], Float32Array.of(1, 2)), b: ndarray("int64", [1], BigInt64Array.of(5n)) };
  test.each([
    ["missing", { a: good.a }, 'Input "b" int64 [batch] is missing; found: a'],
    ["nothing", {}, 'Input "a" float32 [batch, 2] is missing; found: no inputs'],
    ["type", { ...good, b: vector(1) }, 'Input "b" int64 [batch]: found float32 [1] (with batch = 1)'],
    ["rank", { ...good, a: vector(1, 2) }, 'Input "a" float32 [batch, 2]: found float32 [2]'],
    [
      "size",
      { ...good, a: ndarray("float32", [1, 3], new Float32Array(3)) },
      'Input "a" float32 [batch, 2]: found float32 [1, 3] (with batch = 1)',
    ],
    [
      "named size",
      { ...good, b: ndarray("int64", [2], BigInt64Array.of(1n, 2n)) },
      'Input "b" int64 [batch]: found int64 [2] (with batch = 1)',
    ],
  ])("%s", async (_, feeds, message) => {
    await expect(evaluate(graph, outputs, feeds)).rejects.toThrow(message);
  });

  test("matching arrays are computed", async () => {
    const found = await evaluate(graph, outputs, good);
    expect([...found.y.data]).toEqual([2, 3]);
    expect([...found.z.data]).toEqual([6n]);
  });
});

test("an output can be written to a given array", async () => {
  const graph = new Graph();
  const session = await Session.create(graph, { y: graph.input("x", "float32", [2]).mul(3) });
  const into = vector(0, 0);
  const { y } = await session.run({ x: vector(1, 2) }, { y: into });
  expect(y).toBe(into);
  expect([...into.data]).toEqual([3, 6]);
  await session.close();
});

test("an input can be an output, and unused inputs can be fed", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [1]);
  graph.input("unused", "float32", [1]);
  expect((await evaluate(graph, { same: x }, { x: vector(4), unused: vector(1) })).same.data).toEqual(
    Float32Array.of(4),
  );
});

test("a value can be two outputs and the input of a third", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2]);
  const twice = x.mul(2);
  const three = graph.constant(vector(3, 3));
  const outputs = { first: twice, second: twice, threes: three, sum: twice.add(three) };
  const results = await evaluate(graph, outputs, { x: vector(1, 2) });
  const values = Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, [...data]]));
  expect(values).toEqual({ first: [2, 4], second: [2, 4], threes: [3, 3], sum: [5, 7] });
});

test("an output with the name of another value is rejected", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [1]);
  await expect(evaluate(graph, { x: x.add(1) }, { x: vector(1) })).rejects.toThrow(
    'Output "x" has the name of another value of the graph; rename it',
  );
});

test("devices", () => {
  expect(executionProviders("cpu")).toEqual(["cpu"]);
  expect(executionProviders("auto").at(-1)).toBe("cpu");
  const missing = process.platform === "darwin" ? "dml" : "coreml";
  expect(() => executionProviders(missing)).toThrow(
    `Device "${missing}" is not supported by this build of ONNX Runtime; supported: `,
  );
});

describe("constants that are stored in files with the same bytes", () => {
  const size = 64 * 64 * 4;
  const matrix = new Float32Array(64 * 64).map((_, i) => (i % 65 === 0 ? 2 : 0));

  /** x times a matrix that a file holds from `offset` on; loading it is an error where it should be mapped. */
  async function stored(path: string, offset: number, load: () => Uint8Array) {
    await writeFile(path, Buffer.concat([Buffer.alloc(offset), Buffer.from(matrix.buffer)]));
    const graph = new Graph();
    const x = graph.input("x", "float32", [1, 64]);
    const weight = graph.weight("w", "float32", [64, 64], load, { path, offset, length: size });
    return { graph, y: matmul(x, weight), feeds: { x: ndarray("float32", [1, 64], new Float32Array(64).fill(1)) } };
  }
  const never = () => {
    throw new Error("was loaded");
  };
  const copied = () => new Uint8Array(matrix.buffer);

  test("are mapped from the files, and no temporary file is left", async () => {
    const model = join(folder, "native");
    await mkdir(join(model, "llm"), { recursive: true });
    // No whole page, as tensors lie in safetensors files.
    const { graph, y, feeds } = await stored(join(model, "llm", "w.bin"), 1236, never);
    const session = await Session.create(graph, { y }, { weightsFolder: model });
    expect((await session.run(feeds)).y.data).toEqual(new Float32Array(64).fill(2));
    await session.close();
    expect(await readdir(model)).toEqual(["llm"]);
    await rm(model, { recursive: true });
  });

  test.each([
    ["outside of the folder", "elsewhere", 1236],
    ["where elements do not begin", "native", 1237],
  ])("are copied if they lie %s", async (_, place, offset) => {
    const model = join(folder, "native");
    for (const name of ["native", "elsewhere"]) await mkdir(join(folder, name), { recursive: true });
    const { graph, y, feeds } = await stored(join(folder, place, "w.bin"), offset, copied);
    const session = await Session.create(graph, { y }, { weightsFolder: model });
    expect((await session.run(feeds)).y.data).toEqual(new Float32Array(64).fill(2));
    await session.close();
    for (const name of ["native", "elsewhere"]) await rm(join(folder, name), { recursive: true });
  });
});

test("conditional outputs are computed only if their condition is true", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["rows", 2]);
  const condition = graph.input("condition", "bool", []);
  const weight = graph.constant(ndarray("float32", [2, 2], Float32Array.of(1, 2, 3, 4)), "weight");
  const y = matmul(x, weight);
  const gradient = matmul(y, x, { transA: true });
  const total = matmul(gradient, gradient);
  const conditional = { condition, outputs: { gradient, same: gradient, total } };
  const session = await Session.create<string>(graph, { y }, { conditional });
  const feeds = { x: ndarray("float32", [1, 2], Float32Array.of(1, 1)) };
  const when = (value: number) => ({ ...feeds, condition: ndarray("bool", [], Uint8Array.of(value)) });
  const spare = { gradient: ndarray("float32", [2, 2], new Float32Array(4)) };
  const [computed, skipped] = [await session.run(when(1), spare), await session.run(when(0))];
  await session.close();
  expect([...(computed.y?.data ?? [])]).toEqual([4, 6]);
  expect(computed.gradient).toBe(spare.gradient);
  expect([...spare.gradient.data]).toEqual([4, 4, 6, 6]);
  expect([...(computed.same?.data ?? [])]).toEqual([4, 4, 6, 6]);
  expect([...(computed.total?.data ?? [])]).toEqual([40, 40, 60, 60]);
  expect(skipped.y).toEqual(computed.y);
  for (const name of ["gradient", "same", "total"]) expect(skipped[name]?.shape).toEqual([0, 0]);
});
