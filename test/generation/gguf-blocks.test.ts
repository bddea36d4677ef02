/** Language models in every quantised type of GGUF, from the file to the scores of the next token. */

import { join } from "node:path";
import { expect, test } from "vitest";
import { writeRandomLlama } from "../../bench/random-llama.ts";
import { type BlockType, blockLayouts } from "../../src/formats/gguf/blocks.ts";
import { languageGraph } from "../../src/generation/language-model.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import type { LlamaConfig } from "../../src/models/llama.ts";
import { type OpenLlama, openLlama } from "../../src/models/llama-folder.ts";
import type { Quantization } from "../../src/tensor/quant/quantization.ts";
import { temporaryFolder } from "../helpers/weight-files.ts";

const folder = temporaryFolder();
const types = Object.keys(blockLayouts) as BlockType[];
const config: LlamaConfig = {
  vocabSize: 320,
  hiddenSize: 256,
  intermediateSize: 512,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  maxPositionEmbeddings: 64,
  tieWordEmbeddings: false,
};
const ids = [1, 17, 300, 42, 5, 260];

async function scores({ checkpoint, config: own }: OpenLlama, quantization: Quantization): Promise<Float32Array> {
  const model = await createLanguageModel(checkpoint, own, { quantization });
  const { data } = await model.forward([ids], model.newCache(), "all");
  await model.close();
  return data as Float32Array;
}

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

/** Of the difference between products with blocks as they are and those with the float32 values that they stand for. */
async function deviation(name: string, typeOf: (name: string) => BlockType, quantization: Quantization = "int4") {
  const path = join(folder, `${name}.gguf`);
  await writeRandomLlama(path, config, typeOf);
  const llama = await openLlama(path);
  const [found, expected] = [await scores(llama, quantization), await scores(llama, "float32")];
  await llama.checkpoint.close();
  return norm(found.map((value, i) => value - (expected[i] as number))) / norm(expected);
}

// Activations are rounded to 8 bits in every product; weights rounded to 4 bits once more would be off by 10% and more.
test.each(types)("%s: stored blocks give the logits of the float32 values", async (type) => {
  expect(await deviation(type, () => type)).toBeLessThan(0.025);
});

test("a file of all types, mixed within a layer and within a joined product", async () => {
  let next = 0;
  expect(await deviation("mixed", () => types[next++ % types.length] as BlockType)).toBeLessThan(0.025);
});

test("no matrix becomes float32, not even the input embeddings", async () => {
  const path = join(folder, "table.gguf");
  await writeRandomLlama(path, config, () => "Q6_K");
  const { checkpoint, config: own } = await openLlama(path);
  const { graph } = languageGraph(checkpoint, own, "int4");
  await checkpoint.close();
  const sizes = [...graph.initializers.values()].map(({ value }) => (value.dtype === "float32" ? value.shape : []));
  // The largest are scales, one for 16 elements.
  const largest = Math.max(...sizes.map((shape) => shape.reduce<number>((product, dim) => product * Number(dim), 1)));
  expect(largest).toBe((2 * own.intermediateSize * own.hiddenSize) / 16);
});

test("rounding to blocks of 128 exceeds the tolerance, so the tolerance is meaningful", async () => {
  expect(await deviation("rounded", () => "Q6_K", { bits: 4, blockSize: 128 })).toBeGreaterThan(0.05);
});
