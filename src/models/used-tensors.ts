/** The tensors of a checkpoint that a model uses. Building the graph checks that none is missing and that all shapes match. */
import { Weights } from "../nn/weights.ts";
import { Graph } from "../tensor/graph.ts";
import { UsedWeights, type WeightSource } from "../tensor/weight-source.ts";
import { embedTokens, type LlamaConfig, llama, logits } from "./llama.ts";
import { type ImageSources, imageFeatures, imageTokens, imageWeights, type MiniGPT4Config } from "./minigpt4.ts";

/** Names of the tensors of a language model. @throws Error with file, tensor and shapes if one is missing or has another shape */
export function usedByLlama(source: WeightSource, config: LlamaConfig): ReadonlySet<string> {
  const used = new UsedWeights(source);
  const graph = new Graph();
  const w = new Weights(graph, used);
  const ids = graph.input("ids", "int64", ["batch", "sequence"]);
  const positions = graph.input("positions", "int64", ["batch", "sequence"]);
  logits(w, llama(w, embedTokens(w, ids, config), positions, config).hidden, config);
  return used.names;
}

/**
 * Names of the tensors of encoder, Q-Former and projection.
 * @throws Error with file, tensor and shapes if one is missing or has another shape
 */
export function usedByImages(
  { encoder, qformer, projection }: ImageSources,
  config: MiniGPT4Config,
): Readonly<Record<keyof ImageSources, ReadonlySet<string>>> {
  const used = {
    encoder: new UsedWeights(encoder),
    qformer: new UsedWeights(qformer),
    projection: new UsedWeights(projection),
  };
  const graph = new Graph();
  const { imageSize } = config.encoder;
  const pixels = graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
  const w = imageWeights(graph, used);
  imageTokens(w, imageFeatures(w, pixels, config), config);
  return { encoder: used.encoder.names, qformer: used.qformer.names, projection: used.projection.names };
}
