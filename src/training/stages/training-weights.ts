/** The weights of a MiniGPT-4 in training: what is trained are inputs of the graph, the rest is constant. */
import { int8Choice } from "../../models/llama.ts";
import type { MiniGPT4Weights } from "../../models/minigpt4.ts";
import { type WeightSource, Weights } from "../../nn/weights.ts";
import { Graph } from "../../tensor/graph.ts";
import type { ModelParts } from "../parts.ts";

/**
 * All weights in a new graph.
 * @param source weights of encoder, Q-Former and projection; of the trained ones only the shapes count
 */
export function trainingWeights(
  { llm, isTrained }: ModelParts,
  source: WeightSource,
  llmPrecision: "float32" | "int8",
): MiniGPT4Weights {
  const graph = new Graph();
  const image = new Weights(graph, source, { trainable: isTrained });
  const options = llmPrecision === "int8" ? { int8: int8Choice } : {};
  return { encoder: image, qformer: image, projection: image, llm: new Weights(graph, llm.checkpoint, options) };
}
