/** Loads a model folder into an engine on the calling thread. */

import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { sha256Hex } from "../files/digest.ts";
import type { LanguageModel } from "../generation/language-model.ts";
import {
  type LanguageModelOptions,
  openImageEncoder,
  openLanguageModel,
  resolveContextLength,
} from "../generation/load.ts";
import type { PullOptions } from "../hub/pull.ts";
import { type ImageLimits, readImage } from "../images/decode.ts";
import type { LlamaConfig } from "../models/llama.ts";
import { tokensPerImage } from "../models/minigpt4.ts";
import { type ModelFolder, openModelFolder } from "../models/model-folder.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { ImageCache, type ImageSource } from "./caches.ts";
import { openEmbedder } from "./embedder.ts";
import { LocalEngine } from "./local-engine.ts";
import type { SchedulerOptions } from "./scheduler.ts";

/** Engine options; all of them can be sent to another process. */
export interface EngineOptions
  extends SessionOptions,
    Pick<LanguageModelOptions, "quantization">,
    Partial<SchedulerOptions> {
  /** Limits on the size of images. */
  readonly images?: ImageLimits;
  /** Memory for the image tokens of earlier requests, in bytes. @default 268435456 */
  readonly imageCacheBytes?: number;
}

/** Memory for the KV caches of a full batch of sequences as long as the context, in bytes. */
const batchBytes = 2 ** 31;
/** Memory for the KV caches of earlier requests, in bytes. */
const defaultPrefixBytes = 2 ** 29;
const maxBatch = 16;

/**
 * Loads a model folder.
 * @param name name of the model, for clients and messages
 * @throws Error naming the file that is missing or does not match
 */
export async function loadEngine(
  path: string,
  name: string,
  { images, imageCacheBytes, pull, ...given }: EngineOptions & { readonly pull?: PullOptions } = {},
): Promise<LocalEngine> {
  const folder = await openModelFolder(path, pull);
  const options = { weightsFolder: path, ...given };
  try {
    const { config, tokenizer } = folder.llm;
    const { encoder, llm, embedder } = await openParts(folder, options);
    const contextLength = resolveContextLength(config);
    const fittingBatch = Math.floor(batchBytes / countCacheBytes(config, contextLength));
    return new LocalEngine(
      {
        model: {
          name,
          contextLength,
          tokensPerImage: tokensPerImage(folder.config),
          embeddingSize: embedder?.size,
        },
        embedder,
        images: new ImageCache(encoder, imageFiles(images), imageCacheBytes),
        llm,
        tokenizer,
        template: folder.template,
        describe: folder.describe,
      },
      {
        maxBatch: options.maxBatch ?? Math.max(1, Math.min(maxBatch, fittingBatch)),
        prefixBytes: options.prefixBytes ?? defaultPrefixBytes,
      },
    );
  } finally {
    await folder.close();
  }
}

/** Opens the sessions of a model. If one fails to open, those before it are closed. */
async function openParts(folder: ModelFolder, options: SessionOptions & Pick<EngineOptions, "quantization">) {
  const { quantization = folder.quantization, ...session } = options;
  const encoder = await openImageEncoder(folder, session);
  let llm: LanguageModel | undefined;
  try {
    llm = await openLanguageModel(folder.llm, folder.path, { ...session, quantization });
    return { encoder, llm, embedder: await openEmbedder(folder, session) };
  } catch (error) {
    await llm?.close();
    await encoder.close();
    throw error;
  }
}

/** Bytes of the keys and values of one sequence. */
function countCacheBytes({ numHiddenLayers, numKeyValueHeads, headDim }: LlamaConfig, positions: number): number {
  return 2 * numHiddenLayers * numKeyValueHeads * headDim * positions * Float32Array.BYTES_PER_ELEMENT;
}

/** Reads images from files and from memory, in Node. */
export function imageFiles(limits: ImageLimits = {}): ImageSource {
  return {
    /** A file is identified by its path, size and modification time. */
    async key(image) {
      if (typeof image !== "string") return sha256Hex(image);
      const info = await stat(image).catch(() => undefined);
      return JSON.stringify([resolve(image), info?.size, info?.mtimeMs]);
    },
    decode: (image) => readImage(image, limits),
  };
}
