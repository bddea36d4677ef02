import { expect, test } from "vitest";
import { featureShape, imageTokens, type MiniGPT4Config, tokensPerImage } from "../../src/models/minigpt4.ts";
import { initialProjection, initialQFormer } from "../../src/models/qformer-init.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Random } from "../../src/tensor/random.ts";
import { tinyConfig } from "../helpers/tiny-llama.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const llm = tinyConfig(20);
const qformer = {
  numQueryTokens: 5,
  hiddenSize: 12,
  numHiddenLayers: 3,
  numAttentionHeads: 3,
  intermediateSize: 20,
  encoderWidth: 1280,
  crossAttentionFrequency: 2,
  layerNormEps: 1e-12,
};
const config: MiniGPT4Config = { encoder: { type: "efficientnet_lite0", imageSize: 224 }, qformer, llm };
const vit = {
  type: "eva_vit",
  imageSize: 224,
  patchSize: 14,
  hiddenSize: 1408,
  numHiddenLayers: 39,
  numAttentionHeads: 16,
  intermediateSize: 6144,
  layerNormEps: 1e-6,
} as const;

test("sizes of the released models", () => {
  expect(featureShape(vit)).toEqual([257, 1408]);
  expect(featureShape(config.encoder)).toEqual([49, 1280]);
  expect(tokensPerImage({ encoder: vit, qformer: { ...qformer, numQueryTokens: 32 } })).toBe(32);
  expect(tokensPerImage({ encoder: vit })).toBe(64);
  expect(() => tokensPerImage({ encoder: config.encoder })).toThrow("A model without a Q-Former needs a ViT");
});

function tokens(projectionWidth: number, projectionOut: number) {
  const random = new Random(1);
  const graph = new Graph();
  const weights = new Weights(graph, inMemory(initialQFormer(qformer, random), "qformer.safetensors"));
  const projection = inMemory(initialProjection(projectionWidth, projectionOut, random), "pretrained_minigpt4.pth");
  const w = { encoder: weights, qformer: weights, projection: new Weights(graph, projection) };
  const features = graph.input("features", "float32", ["images", ...featureShape(config.encoder)]);
  return { graph, y: imageTokens(w, features, config) };
}

test("an initialized Q-Former and projection are complete, and their output depends on the image", async () => {
  const { graph, y } = tokens(12, llm.hiddenSize);
  expect(y.shape).toEqual(["images", 5, 16]);
  const found = (await evaluate(graph, { y }, { features: normal([2, 49, 1280], 3) })).y.data as Float32Array;
  expect(found.every(Number.isFinite)).toBe(true);
  expect(found.slice(0, 80)).not.toEqual(found.slice(80));
});

test("a projection for another language model is an error with file and shapes", () => {
  expect(() => tokens(12, 24)).toThrow(
    'pretrained_minigpt4.pth: tensor "llama_proj.weight" is [24, 12], but this network needs [16, 12]; ' +
      "are these the weights of another model size?",
  );
});
