import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { type WeightOptions, Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { concat } from "../../src/tensor/ops/layout.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const folder = temporaryFolder();

const source = inMemory(
  {
    "layer.0.up.weight": normal([6, 4], 1),
    "layer.0.gate.weight": normal([2, 4], 2),
    "layer.0.bias": normal([1, 6], 3),
  },
  "/models/tiny.safetensors",
);

test("a missing tensor is named with its file, the shape it should have, and what is there instead", () => {
  const w = new Weights(new Graph(), source);
  expect(() => w.at("layer").at(0).get("down.weight", [4, 6])).toThrow(
    '/models/tiny.safetensors has no tensor "layer.0.down.weight" (expected [4, 6]); it has, for example, ' +
      '"layer.0.up.weight", "layer.0.gate.weight"',
  );
  expect(() => new Weights(new Graph(), inMemory({}, "empty.bin")).get("x", [1])).toThrow(
    'empty.bin has no tensor "x" (expected [1]); it is empty',
  );
});

test("a tensor of another shape is named with its file, both shapes, and the likely reason", () => {
  const w = new Weights(new Graph(), source);
  const message =
    '/models/tiny.safetensors: tensor "layer.0.up.weight" is [6, 4], but this network needs [4, 6]; ' +
    "are these the weights of another model size?";
  expect(() => w.get("layer.0.up.weight", [4, 6])).toThrow(message);
  const x = w.graph.input("x", "float32", [1, 6]);
  expect(() => w.product(x, [{ name: "layer.0.up.weight", out: 4 }])).toThrow(message);
  const two = [
    { name: "layer.0.gate.weight", out: 2 },
    { name: "layer.0.up.weight", out: 4 },
  ];
  expect(() => w.product(x, two)).toThrow('tensor "layer.0.gate.weight" is [2, 4], but this network needs [2, 6]');
});

test("axes of size 1 do not matter", () => {
  const w = new Weights(new Graph(), source);
  expect(w.get("layer.0.bias", [6]).shape).toEqual([6]);
  expect(() => w.get("layer.0.bias", [3, 2])).toThrow(/is \[1, 6\]/);
});

test("whole names and prefixes are found", () => {
  const w = new Weights(new Graph(), source);
  expect([w.has("layer"), w.has("layer.0.bias"), w.has("lay"), w.at("layer.0").has("up")]).toEqual([
    true,
    true,
    false,
    true,
  ]);
});

test("what is trained is an input, what is frozen is read when the model is written, each once", () => {
  const w = new Weights(new Graph(), source, { trainable: (name) => name.endsWith("bias") });
  const bias = w.at("layer.0").get("bias", [6]);
  expect(w.get("layer.0.bias", [6])).toBe(bias);
  const up = w.get("layer.0.up.weight", [6, 4]);
  expect(w.graph.inputs).toEqual([bias]);
  expect([...w.graph.initializers.values()].map(({ value }) => value)).toEqual([up]);
  expect([...w.trained]).toEqual([["layer.0.bias", bias]]);
  expect(w.isOneProduct(["layer.0.up.weight", "layer.0.bias"])).toBe(false);
  expect(w.isOneProduct(["layer.0.up.weight"])).toBe(true);
});

test("matrices in 4 bits give about the same product", async () => {
  const wide = inMemory({ a: normal([8, 64], 4), b: normal([8, 64], 5) });
  const x = normal([3, 64], 6);
  const run = async (int4: boolean) => {
    const graph = new Graph();
    const w = new Weights(graph, wide, { int4: () => int4 });
    const y = w.product(graph.input("x", "float32", ["n", 64]), [
      { name: "a", out: 8 },
      { name: "b", out: 8 },
    ]);
    return (await evaluate(graph, { y }, { x })).y.data as Float32Array;
  };
  const [exact, rounded] = [await run(false), await run(true)];
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  expect(dot(exact, rounded) / Math.sqrt(dot(exact, exact) * dot(rounded, rounded))).toBeGreaterThan(0.98);
  expect(rounded).not.toEqual(exact);
});

test("matrices in 8 bits, joined too, give nearly the product and gradient of float32", async () => {
  const wide = inMemory({ a: normal([8, 64], 4), b: normal([24, 64], 5) });
  const run = async (options: WeightOptions) => {
    const graph = new Graph();
    const w = new Weights(graph, wide, options);
    const x = graph.input("x", "float32", ["n", 64]);
    const matrices = [
      { name: "a", out: 8 },
      { name: "b", out: 24 },
    ];
    const joined = w.product(x, matrices);
    const y = joined.add(concat([w.product(x, matrices.slice(0, 1)), w.product(x, matrices.slice(1))], -1));
    const [dx = y] = gradients(reduceSum(y.mul(y), [0, 1], { keep: false }), [x]);
    const found = await evaluate(graph, { y, dx }, { x: normal([3, 64], 6) });
    return [...(found.y.data as Float32Array), ...(found.dx.data as Float32Array)];
  };
  const exact = await run({});
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  const rounded = await run({ int8: () => 8 });
  expect(dot(exact, rounded) / Math.sqrt(dot(exact, exact) * dot(rounded, rounded))).toBeGreaterThan(0.999);
  expect(rounded).not.toEqual(exact);
  // Matrices that are joined are in 8 bits together or not at all.
  const some = await run({ int8: (name) => (name === "a" ? 8 : undefined) });
  expect(dot(exact, some) / Math.sqrt(dot(exact, exact) * dot(some, some))).toBeGreaterThan(0.999);
  expect(some).not.toEqual(rounded);
  // Twice as many bits of what they are multiplied with are nearer to float32.
  const finer = await run({ int8: () => 16 });
  const distance = (values: number[]) =>
    values.reduce((sum, value, i) => sum + Math.abs(value - (exact[i] as number)), 0);
  expect(distance(finer)).toBeLessThan(distance(rounded));
});

test("what is trained stays in float32, and nothing is in 4 and in 8 bits at once", () => {
  const w = new Weights(new Graph(), source, { int8: () => 8, trainable: () => true });
  const x = w.graph.input("x", "float32", [1, 4]);
  w.product(x, [{ name: "layer.0.gate.weight", out: 2 }]);
  expect([...w.trained.keys()]).toEqual(["layer.0.gate.weight"]);
  const both = new Weights(x.graph, source, { int8: () => 8, int4: (name) => name.includes("up") });
  expect(() => both.product(x, [{ name: "layer.0.up.weight", out: 6 }])).toThrow(
    '"layer.0.up.weight" is asked for in 4 bits and in 8 bits; choose one of them',
  );
});

test("float32 is mapped where it lies in a file, what has to be converted is not", async () => {
  const path = join(folder, "plain.safetensors");
  await writeSafetensors(path, {
    floats: ndarray(
      "float32",
      [2, 4],
      Float32Array.from({ length: 8 }, (_, i) => i / 2),
    ),
    halves: ndarray("float16", [2, 4], new Uint16Array(8)),
    integers: ndarray(
      "int32",
      [2, 4],
      Int32Array.from({ length: 8 }, (_, i) => i),
    ),
  });
  const checkpoint = await openCheckpoint(path);
  const w = new Weights(new Graph(), checkpoint);
  for (const name of ["floats", "halves", "integers"]) w.get(name, [2, 4]);
  const stored = [...w.graph.initializers.values()].map(({ value, stored }) => [value.name, stored?.path]);
  expect(stored).toEqual([
    ["floats", path],
    ["halves", undefined],
    ["integers", undefined],
  ]);
  await checkpoint.close();
});
