/** The graphs of a model's two halves. */

import { type LlamaConfig, logits } from "../models/llama.ts";
import { type ImageWeights, imageFeatures, imageTokens, type MiniGPT4Config } from "../models/minigpt4.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { decoderGraph } from "./language-model.ts";

/** What a language model reads with, and the scores of what follows. */
export function languageGraph(
  source: WeightSource,
  config: LlamaConfig,
  quantization?: Quantization,
): { graph: Graph; outputs: Record<string, Value> } {
  const { weights, hidden, cache } = decoderGraph(source, config, quantization);
  return { graph: weights.graph, outputs: { logits: logits(weights, hidden, config), ...cache } };
}

/** `pixels` -> `tokens` of one image, as `ImageReader` runs it: the engine plans its memory faster where all sizes are known. */
export function imageOutputs(graph: Graph, weights: ImageWeights, config: MiniGPT4Config): { tokens: Value } {
  const { imageSize } = config.encoder;
  const pixels = graph.input("pixels", "float32", [1, 3, imageSize, imageSize]);
  return { tokens: imageTokens(weights, imageFeatures(weights, pixels, config), config) };
}
