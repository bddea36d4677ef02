/** A model folder becomes an engine on the calling thread. */

import {
  type LanguageModelOptions,
  openImageEncoder,
  openLanguageModel,
  resolveContextLength,
} from "../generation/load.ts";
import type { PullOptions } from "../hub/pull.ts";
import type { ImageLimits } from "../images/decode.ts";
import type { LlamaConfig } from "../models/llama.ts";
import { tokensPerImage } from "../models/minigpt4.ts";
import { openModelFolder } from "../models/model-folder.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { ImageCache, imageFiles } from "./caches.ts";
import { openEmbedder } from "./embedder.ts";
import { LocalEngine } from "./local-engine.ts";
import type { SchedulerOptions } from "./scheduler.ts";

/** All of it can be sent to another process. */
export interface EngineOptions
  extends SessionOptions,
    Pick<LanguageModelOptions, "quantization">,
    Partial<SchedulerOptions> {
  /** What an image may cost. */
  readonly images?: ImageLimits;
}

/** Memory for the caches of all answers that are written at once, if all were as long as the context, in bytes. */
const batchBytes = 2 ** 31;
const prefixBytesByDefault = 2 ** 29;
const maxBatch = 16;

/**
 * Loads a model folder.
 * @param name what the model is called
 * @throws Error naming what is missing or does not fit
 */
export async function loadEngine(
  path: string,
  name: string,
  { quantization, images, pull, ...given }: EngineOptions & { readonly pull?: PullOptions } = {},
): Promise<LocalEngine> {
  const folder = await openModelFolder(path, pull);
  const options = { weightsFolder: path, ...given };
  try {
    const { config, tokenizer } = folder.llm;
    const reader = await openImageEncoder(folder, options);
    const llm = await openLanguageModel(folder.llm, path, {
      ...options,
      quantization: quantization ?? folder.quantization,
    });
    const embedder = await openEmbedder(folder, options);
    const contextLength = resolveContextLength(config);
    return new LocalEngine(
      {
        model: {
          name,
          contextLength,
          tokensPerImage: tokensPerImage(folder.config),
          ...(embedder && { embeddingSize: embedder.size }),
        },
        embedder,
        images: new ImageCache(reader, imageFiles(images)),
        llm,
        tokenizer,
        template: folder.template,
        describe: folder.describe,
      },
      {
        maxBatch:
          options.maxBatch ??
          Math.max(1, Math.min(maxBatch, Math.floor(batchBytes / cacheBytes(config, contextLength)))),
        prefixBytes: options.prefixBytes ?? prefixBytesByDefault,
      },
    );
  } finally {
    await folder.close();
  }
}

/** Of the keys and values of so many positions. */
function cacheBytes({ numHiddenLayers, numKeyValueHeads, headDim }: LlamaConfig, positions: number): number {
  return 2 * numHiddenLayers * numKeyValueHeads * headDim * positions * Float32Array.BYTES_PER_ELEMENT;
}
