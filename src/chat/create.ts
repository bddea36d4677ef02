/** The graphs of a model's two halves, given to ONNX Runtime. */
import { openCheckpoint } from "../checkpoints/checkpoint.ts";
import type { LlamaConfig } from "../models/llama.ts";
import type { ImageWeights, MiniGPT4Config } from "../models/minigpt4.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import type { WeightSource } from "../nn/weights.ts";
import type { Graph } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { imageOutputs, languageGraph } from "./graphs.ts";
import { ImageReader } from "./image-reader.ts";
import { LanguageModel } from "./language-model.ts";
import { Prefill } from "./prefill.ts";
import type { Precision } from "./reading-graph.ts";

export interface LanguageModelOptions extends SessionOptions {
  readonly precision?: Precision;
}

/** A language model that reads new positions after a cache. */
export async function createLanguageModel(
  source: WeightSource,
  config: LlamaConfig,
  { precision, ...options }: LanguageModelOptions = {},
): Promise<LanguageModel> {
  const { graph, outputs } = languageGraph(source, config, precision);
  return new LanguageModel(config, await Session.create<string>(graph, outputs, options));
}

/**
 * A language model with the copy of its layers that reads prompts, where its folder has one that is of use here.
 * @param folder a folder that all of its files lie in
 */
export async function openLanguageModel(
  { checkpoint, config, prefillPath }: OpenLlama,
  folder: string,
  { precision, ...options }: LanguageModelOptions = {},
): Promise<LanguageModel> {
  const own = { ...options, weightsFolder: folder };
  const { graph, outputs } = languageGraph(checkpoint, config, precision);
  const runner = await Session.create<string>(graph, outputs, own);
  if (precision !== "stored" || !prefillPath || !Prefill.isPossible(options.device)) {
    return new LanguageModel(config, runner);
  }
  const layers = await openCheckpoint(prefillPath);
  try {
    const prefill = await Prefill.create({ folder, llm: checkpoint, layers }, config, options);
    return new LanguageModel(config, runner, prefill);
  } finally {
    await layers.close();
  }
}

/** @param weights values of `graph`, which must hold nothing else */
export async function createImageReader(
  graph: Graph,
  weights: ImageWeights,
  config: MiniGPT4Config,
  options: SessionOptions = {},
): Promise<ImageReader> {
  return new ImageReader(config, await Session.create(graph, imageOutputs(graph, weights, config), options));
}
