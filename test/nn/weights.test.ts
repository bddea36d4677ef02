import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { linear, linears } from "../../src/nn/layers.ts";
import { type WeightOptions, Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { concat } from "../../src/tensor/ops/layout.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";
import { BlockMatrix } from "../../src/tensor/quant/blocks.ts";
import { DenseMatrix } from "../../src/tensor/quant/dense.ts";
import type { Matrix } from "../../src/tensor/quant/matrix.ts";
import { type Quantization, type QuantizedMatrices, quantizationPolicy } from "../../src/tensor/quant/quantization.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const folder = temporaryFolder();

const all: QuantizedMatrices = { inBlocks: () => true, activationBits: () => 8 };

const source = inMemory(
  {
    "layer.0.up.weight": normal([6, 4], 1),
    "layer.0.gate.weight": normal([2, 4], 2),
    "layer.0.bias": normal([1, 6], 3),
  },
  "/models/tiny.safetensors",
);

test("the error for a missing tensor names the file, the expected shape and similar tensors", () => {
  const w = new Weights(new Graph(), source);
  expect(() => w.at("layer").at(0).get("down.weight", [4, 6])).toThrow(
    '/models/tiny.safetensors has no tensor "layer.0.down.weight" (expected [4, 6]); it has, for example, ' +
      '"layer.0.up.weight", "layer.0.gate.weight"',
  );
  expect(() => new Weights(new Graph(), inMemory({}, "empty.bin")).get("x", [1])).toThrow(
    'empty.bin has no tensor "x" (expected [1]); it is empty',
  );
});

test("the error for a wrong shape names the file, both shapes and the likely reason", () => {
  const w = new Weights(new Graph(), source);
  const message =
    '/models/tiny.safetensors: tensor "layer.0.up.weight" is [6, 4], but this network needs [4, 6]; ' +
    "are these the weights of another model size?";
  expect(() => w.get("layer.0.up.weight", [4, 6])).toThrow(message);
  expect(() => w.matrix("layer.0.up.weight", [4, 6])).toThrow(message);
  const x = w.graph.input("x", "float32", [1, 6]);
  expect(() => linears(w.at("layer.0"), x, { gate: 2, up: 4 })).toThrow(
    'tensor "layer.0.gate.weight" is [2, 4], but this network needs [2, 6]',
  );
});

test("axes of size 1 are ignored", () => {
  const w = new Weights(new Graph(), source);
  expect(w.get("layer.0.bias", [6]).shape).toEqual([6]);
  expect(() => w.get("layer.0.bias", [3, 2])).toThrow(/is \[1, 6\]/);
});

test("has() matches full names and prefixes", () => {
  const w = new Weights(new Graph(), source);
  expect([w.has("layer"), w.has("layer.0.bias"), w.has("lay"), w.at("layer.0").has("up")]).toEqual([
    true,
    true,
    false,
    true,
  ]);
});

test("trainable weights are inputs; frozen weights are read once, when the model is written", () => {
  const w = new Weights(new Graph(), source, { trainable: (name) => name.endsWith("bias") });
  const bias = w.at("layer.0").get("bias", [6]);
  expect(w.get("layer.0.bias", [6])).toBe(bias);
  const up = w.get("layer.0.up.weight", [6, 4]);
  expect(w.graph.inputs).toEqual([bias]);
  expect([...w.graph.initializers.values()].map(({ value }) => value)).toEqual([up]);
  expect([...w.trained]).toEqual([["layer.0.bias", bias]]);
});

test("frozen matrices are concatenated; trainable ones, and all in a mapped graph, stay separate", () => {
  const joined = (options: WeightOptions, mapped = false) => {
    const w = new Weights(new Graph({ mapped }), source, options);
    const matrices = [w.matrix("layer.0.up.weight", [6, 4]), w.matrix("layer.0.gate.weight", [2, 4])];
    return w.concat(matrices);
  };
  expect(joined({})).toMatchObject({ kind: "float32", rows: 8, columns: 4 });
  expect(joined({ trainable: (name) => name.includes("up") })).toBeUndefined();
  expect(joined({ trainable: (name) => name.includes("gate") })).toBeUndefined();
  expect(joined({}, true)).toBeUndefined();
});

test("4-bit matrices give approximately the same product", async () => {
  const wide = inMemory({ "a.weight": normal([8, 64], 4), "b.weight": normal([8, 64], 5) });
  const x = normal([3, 64], 6);
  const run = async (int4: boolean) => {
    const graph = new Graph();
    const w = new Weights(graph, wide, { quantization: quantizationPolicy(int4 ? "int4" : "float32", all) });
    const y = concat(linears(w, graph.input("x", "float32", ["n", 64]), { a: 8, b: 8 }), -1);
    return (await evaluate(graph, { y }, { x })).y.data as Float32Array;
  };
  const [exact, rounded] = [await run(false), await run(true)];
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  expect(dot(exact, rounded) / Math.sqrt(dot(exact, exact) * dot(rounded, rounded))).toBeGreaterThan(0.98);
  expect(rounded).not.toEqual(exact);
});

test("int8 matrices, also concatenated, approximate product and gradient of float32", async () => {
  const wide = inMemory({ "a.weight": normal([8, 64], 4), "b.weight": normal([24, 64], 5) });
  const run = async (activationBits: QuantizedMatrices["activationBits"]) => {
    const graph = new Graph();
    const quantization = quantizationPolicy("int8", { ...all, activationBits });
    const w = new Weights(graph, wide, { quantization });
    const x = graph.input("x", "float32", ["n", 64]);
    const joined = concat(linears(w, x, { a: 8, b: 24 }), -1);
    const y = joined.add(concat([linear(w.at("a"), x, 8), linear(w.at("b"), x, 24)], -1));
    const [dx = y] = gradients(reduceSum(y.mul(y), [0, 1], { keep: false }), [x]);
    const found = await evaluate(graph, { y, dx }, { x: normal([3, 64], 6) });
    return [...(found.y.data as Float32Array), ...(found.dx.data as Float32Array)];
  };
  const exact = await run(() => undefined);
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  const rounded = await run(() => 8);
  expect(dot(exact, rounded) / Math.sqrt(dot(exact, exact) * dot(rounded, rounded))).toBeGreaterThan(0.999);
  expect(rounded).not.toEqual(exact);
  // Matrices of different kinds are separate products, each in its own arithmetic.
  const some = await run((name) => (name === "a.weight" ? 8 : undefined));
  expect(dot(exact, some) / Math.sqrt(dot(exact, exact) * dot(some, some))).toBeGreaterThan(0.999);
  expect(some).not.toEqual(rounded);
  // Twice as many bits of what they are multiplied with are nearer to float32.
  const finer = await run(() => 16);
  const distance = (values: number[]) =>
    values.reduce((sum, value, i) => sum + Math.abs(value - (exact[i] as number)), 0);
  expect(distance(finer)).toBeLessThan(distance(rounded));
});

test("trainable weights stay in float32", () => {
  const w = new Weights(new Graph(), source, { quantization: quantizationPolicy("int8", all), trainable: () => true });
  expect(w.matrix("layer.0.gate.weight", [2, 4]).kind).toBe("float32");
  expect([...w.trained.keys()]).toEqual(["layer.0.gate.weight"]);
});

test("a policy applies to the matrices of its network; rows of a table keep the stored values", () => {
  const kinds = (quantization: Quantization, stored: Matrix = dense) => {
    const policy = quantizationPolicy(quantization, {
      inBlocks: (name) => name === "a",
      activationBits: (name) => (name === "a" ? 8 : undefined),
    });
    return [policy(stored, "a"), policy(stored, "b")].map(({ kind }) => kind);
  };
  const readFloat32 = async () => new Float32Array(8 * 64);
  const dense = new DenseMatrix({ name: "a", rows: 8, columns: 64, readFloat32 });
  const blocks = BlockMatrix.round(dense, { bits: 8, blockSize: 32 });
  expect(kinds("native")).toEqual(["float32", "float32"]);
  expect(kinds("native", blocks)).toEqual(["blocks", "blocks"]);
  expect(kinds("float32", blocks)).toEqual(["float32", "float32"]);
  expect(kinds("int4")).toEqual(["blocks", "float32"]);
  expect(kinds("int8")).toEqual(["int8", "float32"]);
  const policy = (quantization: Quantization) => quantizationPolicy(quantization, all);
  // Without a block size, the blocks of the file are used; with one, everything is rounded.
  expect(policy("int4")(blocks, "a")).toBe(blocks);
  const rounded = policy({ bits: 4, blockSize: 64 })(blocks, "a");
  expect(rounded).toMatchObject({ kind: "blocks", format: { bits: 4, blockSize: 64 } });
  const ids = new Graph().input("ids", "int64", ["n"]);
  rounded.gather(ids);
  expect([...ids.graph.initializers.values()].map(({ value }) => value.dtype)).toEqual(["float32"]);
});

test("float32 weights are mapped from the file; converted ones are not", async () => {
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
