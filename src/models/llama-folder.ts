/** Language models on disk: configuration, weights and tokenizer of a GGUF file or a Hugging Face folder. */

import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJsonFile } from "../files/json-file.ts";
import { withHuggingFaceNames } from "../formats/gguf/names.ts";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { loadTokenizer, type Tokenizer, tokenizerFromGguf } from "../tokenizers/load.ts";
import type { LlamaConfig } from "./llama.ts";

/** An open language model. Weights are read on demand. */
export interface OpenLlama {
  readonly config: LlamaConfig;
  /** Weights by Hugging Face's names. */
  readonly checkpoint: Checkpoint;
  readonly tokenizer: Tokenizer;
  /** A folder with the layers in int8, for prefill; see `generation/prefill.ts`. */
  readonly prefillPath?: string;
}

/** Files of a Hugging Face folder next to the weights. */
export const smallFiles = [
  "config.json",
  "generation_config.json",
  "tokenizer.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
];

/** Name of the folder with the int8 layers. */
export const prefillFolder = "prefill";

/**
 * Opens a GGUF file, or a folder with `config.json`, weights and a tokenizer.
 * @throws Error naming the file that is missing, damaged or of another model family
 */
export async function openLlama(path: string): Promise<OpenLlama> {
  const entry = await stat(path).catch((cause: Error) => {
    throw new Error(`The language model ${path} does not exist`, { cause });
  });
  return entry.isDirectory() ? openFolder(path) : openGgufFile(path);
}

async function openFolder(folder: string): Promise<OpenLlama> {
  const path = join(folder, "config.json");
  const config = llamaConfigFromJson(await readJsonFile(path), path);
  const tokenizer = await loadTokenizer(folder);
  const prefillPath = join(folder, prefillFolder);
  return {
    config,
    checkpoint: await openCheckpoint(folder),
    tokenizer,
    prefillPath: existsSync(prefillPath) ? prefillPath : undefined,
  };
}

async function openGgufFile(path: string): Promise<OpenLlama> {
  const file = await openCheckpoint(path);
  try {
    if (file.format !== "gguf") {
      throw new Error(
        `${path} is a ${file.format} file without configuration or tokenizer; pass the folder that contains it`,
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

const positive = z.number().int().positive();

const huggingFaceSchema = z.object({
  model_type: z.literal("llama", { error: "only the LLaMA family is supported" }).optional(),
  vocab_size: positive,
  hidden_size: positive,
  intermediate_size: positive,
  num_hidden_layers: positive,
  num_attention_heads: positive,
  num_key_value_heads: positive.optional(),
  head_dim: positive.nullish(),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().default(10000),
  rope_scaling: z.null({ error: "scaled rotary embeddings are not supported" }).optional(),
  hidden_act: z.literal("silu", { error: "only the SiLU activation is supported" }).optional(),
  max_position_embeddings: positive.default(2048),
  tie_word_embeddings: z.boolean().default(false),
});

/** Parses Hugging Face's `config.json`. @throws Error naming the file and each key that is wrong */
export function llamaConfigFromJson(json: unknown, path: string): LlamaConfig {
  const { data, error } = huggingFaceSchema.safeParse(json);
  if (!data) throw new Error(`${path} does not describe a supported language model:\n${z.prettifyError(error)}`);
  return {
    vocabSize: data.vocab_size,
    hiddenSize: data.hidden_size,
    intermediateSize: data.intermediate_size,
    numHiddenLayers: data.num_hidden_layers,
    numAttentionHeads: data.num_attention_heads,
    numKeyValueHeads: data.num_key_value_heads ?? data.num_attention_heads,
    headDim: data.head_dim ?? data.hidden_size / data.num_attention_heads,
    rmsNormEps: data.rms_norm_eps,
    ropeTheta: data.rope_theta,
    maxPositionEmbeddings: data.max_position_embeddings,
    tieWordEmbeddings: data.tie_word_embeddings,
  };
}

/** Parses the metadata of a GGUF file. @throws Error naming the file and the key that is missing or not a number */
export function llamaConfigFromGguf(
  metadata: Readonly<Record<string, unknown>>,
  tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  path: string,
): LlamaConfig {
  const number = (key: string, fallback?: number): number => {
    const value = metadata[`llama.${key}`] ?? fallback;
    if (typeof value === "number" && value > 0) return value;
    throw new Error(
      `${path}: the metadata key "llama.${key}" is ${JSON.stringify(value) ?? "missing"}; expected a number above 0`,
    );
  };
  const hiddenSize = number("embedding_length");
  const heads = number("attention.head_count");
  return {
    vocabSize: tensors.get("model.embed_tokens.weight")?.shape[0] ?? number("vocab_size"),
    hiddenSize,
    intermediateSize: number("feed_forward_length"),
    numHiddenLayers: number("block_count"),
    numAttentionHeads: heads,
    numKeyValueHeads: number("attention.head_count_kv", heads),
    headDim: number("attention.key_length", hiddenSize / heads),
    rmsNormEps: number("attention.layer_norm_rms_epsilon"),
    ropeTheta: number("rope.freq_base", 10000),
    maxPositionEmbeddings: number("context_length"),
    tieWordEmbeddings: !tensors.has("lm_head.weight"),
  };
}
