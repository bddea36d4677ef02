import { expect, test } from "vitest";
import { llama, llamaMatrices, logits } from "../../src/models/llama.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { quantizationPolicy } from "../../src/tensor/quant/quantization.ts";
import type { WeightSource } from "../../src/tensor/weight-source.ts";
import { randomLlama, tinyConfig } from "../helpers/tiny-llama.ts";
import { normal } from "../helpers/weights-in-memory.ts";

const config = tinyConfig(20);
const source = randomLlama(config, 1);

async function scores(weights: WeightSource, tieWordEmbeddings: boolean, embeddings = normal([2, 3, 16], 2)) {
  const graph = new Graph();
  const w = new Weights(graph, weights);
  const own = { ...config, tieWordEmbeddings };
  const x = graph.input("x", "float32", ["batch", "sequence", config.hiddenSize]);
  const positions = graph.input("positions", "int64", ["batch", "sequence"]);
  const { hidden } = llama(w, x, positions, own);
  const [batch = 0, length = 0] = embeddings.shape;
  const order = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(i % length));
  const feeds = { x: embeddings, positions: ndarray("int64", [batch, length], order) };
  return (await evaluate(graph, { y: logits(w, hidden, own) }, feeds)).y;
}

test("tied embeddings are the output matrix", async () => {
  const tied = await scores(source, true);
  expect(tied.shape).toEqual([2, 3, 20]);
  const rename: Record<string, string> = { "lm_head.weight": "model.embed_tokens.weight" };
  const sameHead = { ...source, readFloat32: (name: string) => source.readFloat32(rename[name] ?? name) };
  expect((await scores(sameHead, false)).data).toEqual(tied.data);
  expect((await scores(source, false)).data).not.toEqual(tied.data);
});

test("outputIndices selects from the output of all positions", async () => {
  const graph = new Graph();
  const w = new Weights(graph, source);
  const x = graph.input("x", "float32", ["batch", "sequence", config.hiddenSize]);
  const positions = graph.input("positions", "int64", ["batch", "sequence"]);
  const outputIndices = graph.input("outputIndices", "int64", ["selected"]);
  const all = llama(w, x, positions, config).hidden;
  const some = llama(w, x, positions, config, { outputIndices }).hidden;
  const int64 = (shape: number[], ...values: bigint[]) => ndarray("int64", shape, BigInt64Array.from(values));
  const feeds = {
    x: normal([2, 3, 16], 2),
    positions: int64([2, 3], 0n, 1n, 2n, 0n, 1n, 2n),
    outputIndices: int64([2], 4n, 2n),
  };
  const results = await evaluate(graph, { all, some }, feeds);
  expect(results.some.shape).toEqual([2, 16]);
  const row = (place: number) => [...results.all.data.slice(place * 16, (place + 1) * 16)] as number[];
  [...row(4), ...row(2)].forEach((value, i) => {
    expect(results.some.data[i]).toBeCloseTo(value, 5);
  });
});

test("positions do not depend on later ones, nor sequences of a batch on each other", async () => {
  const embeddings = normal([2, 3, 16], 2);
  const before = (await scores(source, false, embeddings)).data as Float32Array;
  const changed = ndarray("float32", embeddings.shape, embeddings.data.slice());
  changed.data.fill(3, 2 * 16, 3 * 16);
  const after = (await scores(source, false, changed)).data as Float32Array;
  const row = (data: Float32Array, i: number) => data.subarray(i * 20, (i + 1) * 20);
  for (const i of [0, 1, 3, 4, 5]) expect(row(after, i)).toEqual(row(before, i));
  expect(row(after, 2)).not.toEqual(row(before, 2));
});

test("weights of another size are an error with file, tensor and shapes", async () => {
  await expect(scores(randomLlama({ ...config, numKeyValueHeads: 4 }, 1), false)).rejects.toThrow(
    'random: tensor "model.layers.0.self_attn.k_proj.weight" is [16, 16], but this network needs [8, 16]',
  );
});

test("int8 products approximate the logits; the output layer stays in float32", async () => {
  const graph = new Graph();
  const w = new Weights(graph, source, { quantization: quantizationPolicy("int8", llamaMatrices) });
  const x = graph.input("x", "float32", ["batch", "sequence", config.hiddenSize]);
  const positions = graph.input("positions", "int64", ["batch", "sequence"]);
  const y = logits(w, llama(w, x, positions, config).hidden, config);
  const order = BigInt64Array.from({ length: 6 }, (_, i) => BigInt(i % 3));
  const found = await evaluate(graph, { y }, { x: normal([2, 3, 16], 2), positions: ndarray("int64", [2, 3], order) });
  const exact = (await scores(source, false)).data as Float32Array;
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  const rounded = found.y.data as Float32Array;
  expect(dot(exact, rounded) / Math.sqrt(dot(exact, exact) * dot(rounded, rounded))).toBeGreaterThan(0.999);
  expect(rounded).not.toEqual(exact);
  const values = [...graph.initializers.values()].map(({ value }) => value);
  const named = (dtype: string) =>
    values.filter((value) => value.dtype === dtype && value.rank === 2).map(({ name }) => name);
  expect(named("int8")).toHaveLength(4 * config.numHiddenLayers);
  expect(named("float32")).toContain("lm_head.weight");
});
