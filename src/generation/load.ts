/** Opens the image encoder and the language model of a model folder in ONNX Runtime. */

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
import { ImageEncoder, imageOutputs } from "./image-encoder.ts";
import { LanguageModel, languageGraph } from "./language-model.ts";
import { Prefill } from "./prefill.ts";

export interface LanguageModelOptions extends SessionOptions {
  /** @default "float32" */
  readonly quantization?: Quantization;
}

/** Creates a language model from any weights. */
export async function createLanguageModel(
  source: WeightSource,
  config: LlamaConfig,
  { quantization, ...options }: LanguageModelOptions = {},
): Promise<LanguageModel> {
  const { graph, outputs } = languageGraph(source, config, quantization);
  return new LanguageModel(config, await Session.create<string>(graph, outputs, options));
}

/**
 * Opens a language model, with its int8 layers for prefill where the folder has them and this device supports them.
 * @param folder a folder that contains all of its files
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
  try {
    const layers = await openCheckpoint(prefillPath);
    try {
      const prefill = await Prefill.create({ folder, llm: checkpoint, layers }, config, options);
      return new LanguageModel(config, runner, prefill);
    } finally {
      await layers.close();
    }
  } catch (error) {
    await runner.close();
    throw error;
  }
}

/** Image parts of a model folder. */
type ImageParts = Pick<ModelFolder, "path" | "config" | "imageSources">;

/** Opens the image encoder, Q-Former and projection of a model folder. */
export async function openImageEncoder(parts: ImageParts, options: SessionOptions = {}): Promise<ImageEncoder> {
  return new ImageEncoder(parts.config, await openImageEncoderRunner(parts, options));
}

/**
 * A session for `imageOutputs`. Int8 matrices of the encoder are mapped from their file for each image: packing them in
 * advance would take as long as encoding several images, and as much memory again.
 */
export async function openImageEncoderRunner(
  { path, config, imageSources }: ImageParts,
  options: SessionOptions = {},
): Promise<Runner<"tokens">> {
  const { encoder } = imageSources;
  const isTiled = [...encoder.tensors.keys()].some((name) => encoder.matrix(name).kind === "tiled-int8");
  const mapped = isTiled && supportsMappedInt8(options.device);
  const graph = new Graph({ mapped });
  const outputs = imageOutputs(graph, imageWeights(graph, imageSources), config);
  return Session.create(graph, outputs, { ...options, weightsFolder: path, storage: mapped ? "mapped" : "memory" });
}

/** Longest context of the original demo, in positions. */
const maxContext = 2000;

/** Context length for conversations: positions of prompt and generated text together. */
export function resolveContextLength({ maxPositionEmbeddings }: LlamaConfig): number {
  return Math.min(maxContext, maxPositionEmbeddings);
}
