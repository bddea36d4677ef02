/** What the text tests compare with. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const golden = join(import.meta.dirname, "../reference/golden");

function readJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(golden, ...path), "utf8"));
}

/** The tokenizer keys of SmolLM2-135M-Instruct's GGUF file (Apache-2.0). */
export function smolLm2Metadata(): Record<string, unknown> {
  return JSON.parse(gunzipSync(readFileSync(join(golden, "smollm2-tokenizer.json.gz"))).toString());
}

export interface SmolLm2Case {
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly greedy_ids?: readonly number[];
  readonly greedy_text?: string;
}

export const smolLm2Cases = readJson<{ cases: readonly SmolLm2Case[] }>("smollm2.json").cases;

export interface LlamaGoldens {
  readonly tokenizer: readonly { readonly text: string; readonly ids: readonly number[]; readonly decoded: string }[];
  readonly dialogue: readonly {
    readonly prompt: string;
    readonly segment_ids: readonly (readonly number[])[];
    readonly question: string;
    readonly greedy: readonly number[];
    readonly greedy_text: string;
  }[];
}

/** The two golden folders, each with its SentencePiece model. */
export const llamaSets = ["mha", "gqa"].map((name) => ({
  name,
  goldens: readJson<LlamaGoldens>(name, "goldens.json"),
  tokenizerModel: join(golden, name, "llama-bin", "tokenizer.model"),
  llmFolder: join(golden, name, "llama-bin"),
}));

export const withoutQFormer = readJson<{ prompt: string; segment_ids: readonly (readonly number[])[] }>(
  "mha",
  "goldens-noqformer.json",
);
