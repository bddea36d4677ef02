/** A language model from disk: dimensions, weights and tokenizer of a GGUF file or a Hugging Face folder. */
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Checkpoint, openCheckpoint } from "../checkpoints/checkpoint.ts";
import { withHuggingFaceNames } from "../checkpoints/gguf-names.ts";
import { loadTokenizer, type Tokenizer, tokenizerFromGguf } from "../text/tokenizer.ts";
import type { LlamaConfig } from "./llama.ts";
import { llamaConfigFromGguf, llamaConfigFromJson } from "./llama-config.ts";

export interface OpenLlama {
  readonly config: LlamaConfig;
  /** Weights under Hugging Face's names. */
  readonly checkpoint: Checkpoint;
  readonly tokenizer: Tokenizer;
  /** A folder with the layers in bytes, for reading prompts; see `chat/prefill.ts`. */
  readonly prefillPath?: string;
}

/** The name of that folder in the language model's. */
export const prefillFolder = "prefill";

/**
 * Opens a GGUF file, or a folder with `config.json`, weights and a tokenizer. Weights are read later, one at a time.
 * @throws Error naming the file if something is missing, damaged or of another family
 */
export async function openLlama(path: string): Promise<OpenLlama> {
  const entry = await stat(path).catch((cause: Error) => {
    throw new Error(`The language model ${path} is not there`, { cause });
  });
  return entry.isDirectory() ? openFolder(path) : openGgufFile(path);
}

async function openFolder(folder: string): Promise<OpenLlama> {
  const path = join(folder, "config.json");
  const config = llamaConfigFromJson(await readJson(path), path);
  const tokenizer = await loadTokenizer(folder);
  const prefillPath = join(folder, prefillFolder);
  return {
    config,
    checkpoint: await openCheckpoint(folder),
    tokenizer,
    ...(existsSync(prefillPath) && { prefillPath }),
  };
}

async function openGgufFile(path: string): Promise<OpenLlama> {
  const file = await openCheckpoint(path);
  try {
    if (file.format !== "gguf") {
      throw new Error(
        `${path} is a ${file.format} file without dimensions or tokenizer; give the folder that it lies in`,
      );
    }
    const checkpoint = withHuggingFaceNames(file);
    const config = llamaConfigFromGguf(checkpoint.metadata, checkpoint.tensors, path);
    return { config, checkpoint, tokenizer: tokenizerFromGguf(checkpoint.metadata) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** A JSON file. @throws Error naming the file if it cannot be read or is no JSON */
export async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new Error(`${path} cannot be read: ${cause.message}`, { cause });
  });
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Error(`${path} is no JSON file: ${(cause as Error).message}`, { cause });
  }
}
