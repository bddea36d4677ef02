/** The graphs of a model's two halves, given to ONNX Runtime. */

import { openCheckpoint } from "../formats/open.ts";
import type { LlamaConfig } from "../models/llama.ts";
import type { OpenLlama } from "../models/llama-folder.ts";
import { imageWeights } from "../models/minigpt4.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import type { Runner } from "../runtime/runner.ts";
import { Session, type SessionOptions, supportsMappedInt8 } from "../runtime/session.ts";
import { Graph } from "../tensor/graph.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { imageOutputs, languageGraph } from "./graphs.ts";
import { ImageEncoder } from "./image-encoder.ts";
import { LanguageModel } from "./language-model.ts";
import { Prefill } from "./prefill.ts";

export interface LanguageModelOptions extends SessionOptions {
  readonly quantization?: Quantization;
}

/** A language model that reads new positions after a cache. */
export async function createLanguageModel(
  source: WeightSource,
  config: LlamaConfig,
  { quantization, ...options }: LanguageModelOptions = {},
): Promise<LanguageModel> {
  const { graph, outputs } = languageGraph(source, config, quantization);
  return new LanguageModel(config, await Session.create<string>(graph, outputs, options));
}

/**
 * A language model with the copy of its layers that reads prompts, where its folder has one that is of use here.
 * @param folder a folder that all of its files lie in
 */
export async function openLanguageModel(
  { checkpoint, config, prefillPath }: OpenLlama,
  folder: string,
  { quantization, ...options }: LanguageModelOptions = {},
): Promise<LanguageModel> {
  const own = { ...options, weightsFolder: folder };
  const { graph, outputs } = languageGraph(checkpoint, config, quantization);
  const runner = await Session.create<string>(graph, outputs, own);
  if (quantization !== "native" || !prefillPath || !supportsMappedInt8(options.device)) {
    return new LanguageModel(config, runner);
  }
  const layers = await openCheckpoint(prefillPath);
  try {
    const prefill = await Prefill.create({ folder, llm: checkpoint, layers }, config, options);
    return new LanguageModel(config, runner, prefill);
  } catch (error) {
    await runner.close();
    throw error;
  } finally {
    await layers.close();
  }
}

/** What a model folder's images are read with. */
type ImageParts = Pick<ModelFolder, "path" | "config" | "imageSources">;

export async function openImageEncoder(parts: ImageParts, options: SessionOptions = {}): Promise<ImageEncoder> {
  return new ImageEncoder(parts.config, await openImageEncoderRunner(parts, options));
}

/**
 * `pixels` of an image -> its `tokens`. An encoder whose matrices are stored in bytes is mapped anew for each image: packing them in
 * advance would take as long as reading some images, and their memory as well.
 */
export async function openImageEncoderRunner(
  { path, config, imageSources }: ImageParts,
  options: SessionOptions = {},
): Promise<Runner<"tokens">> {
  const own = { ...options, weightsFolder: path };
  const { encoder } = imageSources;
  const isTiled = [...encoder.tensors.keys()].some((name) => encoder.matrix(name).kind === "tiled-int8");
  const mapped = isTiled && supportsMappedInt8(options.device);
  const graph = new Graph({ mapped });
  const outputs = imageOutputs(graph, imageWeights(graph, imageSources), config);
  return Session.create(graph, outputs, { ...own, storage: mapped ? "mapped" : "memory" });
}

/** Positions of prompt and answer together, as in the original demo. */
const maxContext = 2000;

/** Positions of prompt and answer together that a conversation with a language model may have. */
export function resolveContextLength({ maxPositionEmbeddings }: LlamaConfig): number {
  return Math.min(maxContext, maxPositionEmbeddings);
}
