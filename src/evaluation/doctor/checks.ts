/** The checks of `minigpt4 doctor`, and how they report findings. */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { strips } from "../../convert/convert-tensor.ts";
import { importJournal } from "../../convert/import.ts";
import { sha256File } from "../../files/digest.ts";
import { readJournal } from "../../files/journal.ts";
import { readJsonFile } from "../../files/json-file.ts";
import { type Checkpoint, openCheckpoint } from "../../formats/open.ts";
import { openImageEncoderRunner } from "../../generation/load.ts";
import type { PullOptions } from "../../hub/pull.ts";
import type { LlamaConfig } from "../../models/llama.ts";
import { llamaConfigFromJson, type OpenLlama, openLlama } from "../../models/llama-folder.ts";
import { findLlm, readDescription } from "../../models/model-folder.ts";
import type { SessionOptions } from "../../runtime/session.ts";
import { ndarray, sizeOf } from "../../tensor/array.ts";
import { BlockMatrix } from "../../tensor/quant/blocks.ts";
import { Random } from "../../tensor/random.ts";
import { loadTokenizer, type Tokenizer } from "../../tokenizers/load.ts";
import type { PromptTemplate } from "../../tokenizers/prompts.ts";
import { computeLayerwiseLoss, type LayerwiseOptions } from "../layerwise-loss.ts";

/** In the order in which they run. */
const checks = ["config", "files", "dimensions", "values", "delta", "tokenizer", "language", "images"] as const;
export type Check = (typeof checks)[number];

export interface Finding {
  readonly check: Check;
  /** A fault prevents the model from working; a note does not. */
  readonly kind: "fault" | "note";
  readonly what: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** Collects the findings of the checks. */
export class Findings {
  readonly all: Finding[] = [];

  fault(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "fault", what, remedy });
  }

  note(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "note", what, remedy });
  }

  /** Returns the result of `work`; an error it throws is recorded as a fault, with the result undefined. */
  async attempt<T>(check: Check, work: () => T | Promise<T>, remedy?: string): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.fault(check, error instanceof Error ? error.message : String(error), remedy);
      return undefined;
    }
  }
}

export type Description = Awaited<ReturnType<typeof readDescription>>;

/** The parts of a language model, each opened on its own, so that a fault in one does not hide the others. Undefined if not readable. */
export interface LlmParts {
  readonly path: string;
  readonly checkpoint?: Checkpoint;
  readonly config?: LlamaConfig;
  readonly tokenizer?: Tokenizer;
  /** The contents of `config.json`, or an empty object. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Reads `config.json`. If it is missing, reports what the path is instead of a model folder. */
export async function checkDescription(findings: Findings, path: string): Promise<Description | undefined> {
  const entry = await stat(path).catch(() => undefined);
  if (!entry) {
    findings.fault("config", `The folder ${path} does not exist`);
    return undefined;
  }
  if (!entry.isDirectory()) {
    findings.fault(
      "config",
      `${path} is a file, not a model folder`,
      "Create a model folder from the released files with minigpt4 import.",
    );
    return undefined;
  }
  const journal = await findings.attempt("files", () => readJournal(join(path, importJournal)));
  if (journal && !existsSync(join(path, "config.json"))) {
    findings.fault(
      "config",
      `${path} is an unfinished import`,
      "Run the same minigpt4 import command again; it resumes the import.",
    );
    return undefined;
  }
  const json = await readJsonFile(join(path, "config.json")).catch(() => undefined);
  if (isRecord(json) && json.model_type !== "minigpt4" && "hidden_size" in json) {
    findings.fault(
      "config",
      `${path} is the folder of a language model, not of a MiniGPT-4`,
      "Create a model folder from it and the image encoder's files with minigpt4 import.",
    );
    return undefined;
  }
  return findings.attempt(
    "config",
    () => readDescription(path),
    "Create a model folder from the released files with minigpt4 import.",
  );
}

/** Compares all files of an import with the sizes and hashes in its journal. */
export async function checkFiles(
  findings: Findings,
  path: string,
  onProgress: (done: number, total: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const journal = await readJournal(join(path, importJournal)).catch(() => undefined);
  const files = Object.entries(journal?.files ?? {});
  const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let done = 0;
  for (const [name, { bytes, sha256 }] of files) {
    const file = join(path, name);
    const status = await stat(file).catch(() => undefined);
    const remedy = "Run the same minigpt4 import command again, or copy the folder again.";
    if (!status) findings.fault("files", `${file} is missing`, remedy);
    else if (status.size !== bytes)
      findings.fault("files", `${file} has ${status.size} bytes, expected ${bytes}`, remedy);
    else if ((await sha256File(file, { signal })) !== sha256)
      findings.fault("files", `${file} has changed since it was written (SHA-256)`, remedy);
    done += bytes;
    onProgress(done, total);
  }
}

/** Opens the weight files of the vision part, by their names in `config.json`. */
export async function openImageFiles(
  findings: Findings,
  path: string,
  { weights }: Description,
): Promise<Map<string, Checkpoint>> {
  const open = new Map<string, Checkpoint>();
  for (const name of new Set(Object.values(weights))) {
    if (name === undefined) continue;
    const file = resolve(path, name);
    const checkpoint = await findings.attempt("files", () => (existsSync(file) ? openCheckpoint(file) : missing(file)));
    if (checkpoint) open.set(name, checkpoint);
  }
  return open;
}

function missing(file: string): never {
  throw new Error(`${file} is missing`);
}

export async function openLlmParts(
  findings: Findings,
  folder: string,
  { llm }: Description,
  pull: PullOptions = {},
): Promise<LlmParts> {
  const path = (await findings.attempt("files", () => findLlm(folder, llm, pull))) ?? resolve(folder, llm);
  if (!existsSync(path)) return { path, json: {} };
  if ((await stat(path)).isFile()) {
    const opened = await findings.attempt("files", () => openLlama(path));
    return { path, ...opened, json: {} };
  }
  const file = join(path, "config.json");
  const json = await findings.attempt("config", () => readJsonFile(file));
  const config =
    json === undefined ? undefined : await findings.attempt("config", () => llamaConfigFromJson(json, file));
  const tokenizer = await findings.attempt(
    "tokenizer",
    () => loadTokenizer(path),
    "Copy it from the folder of the original language model.",
  );
  const checkpoint = await findings.attempt("files", () => openCheckpoint(path));
  return { path, config, tokenizer, checkpoint, json: isRecord(json) ? json : {} };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Encodes a noise image and a plain image: their image tokens must be finite, and differ. */
export async function checkImages(
  findings: Findings,
  parts: Parameters<typeof openImageEncoderRunner>[0],
  options: SessionOptions,
): Promise<void> {
  const { imageSize } = parts.config.encoder;
  const shape = [1, 3, imageSize, imageSize];
  const random = new Random(1);
  const noise = Float32Array.from({ length: 3 * imageSize * imageSize }, () => random.normal());
  const runner = await openImageEncoderRunner(parts, options);
  const read = async (pixels: Float32Array) =>
    (await runner.run({ pixels: ndarray("float32", shape, pixels) })).tokens.data as Float32Array;
  const [first, second] = [await read(noise), await read(new Float32Array(noise.length).fill(0.5))];
  await runner.close();
  const remedy =
    "The weights of the encoder, the Q-Former or the projection are damaged, or belong to different models.";
  if (![first, second].every((tokens) => tokens.every(Number.isFinite))) {
    findings.fault("images", "Image tokens are infinite or NaN", remedy);
    return;
  }
  const differ = first.some((value, i) => Math.abs(value - (second[i] as number)) > 1e-6);
  if (!differ) findings.fault("images", "Different images have the same image tokens", remedy);
}

const tokenizerRemedy = "Copy the tokenizer's files from the folder of the original language model.";

/** Texts that every tokenizer decodes to what was encoded. */
const roundTripTexts = ["The quick brown fox, 1234567890!", "Ünïcödé, 東京, Ελλάδα", "a smile: \u{1f642}"];

/** Embedding tables are often padded to a round number of rows; a larger share of unused rows means another vocabulary. */
const maxPaddingShare = 0.1;

/** Control tokens of the prompt templates, each a single token. */
const controlTokens: Readonly<Record<PromptTemplate["name"], readonly string[]>> = {
  "vicuna-v0": [],
  "llama-2": ["<s>"],
  chatml: ["<|im_start|>", "<|im_end|>"],
  plain: [],
};

/** Checks that the tokenizer matches the language model, as far as that is possible without running the model. */
export function checkTokenizer(
  findings: Findings,
  tokenizer: Tokenizer,
  { vocabSize }: LlamaConfig,
  template: PromptTemplate["name"],
  /** The special tokens in the language model's config. */
  special: { readonly bos_token_id?: unknown; readonly eos_token_id?: unknown },
): void {
  const fault = (what: string, remedy = tokenizerRemedy) => findings.fault("tokenizer", what, remedy);
  if (tokenizer.vocabSize > vocabSize) {
    fault(`The tokenizer has ${tokenizer.vocabSize} tokens, but the language model has only ${vocabSize} embeddings`);
  } else if (tokenizer.vocabSize < (1 - maxPaddingShare) * vocabSize) {
    fault(
      `The tokenizer has ${tokenizer.vocabSize} tokens, but the language model has ${vocabSize} embeddings: it belongs to another model`,
    );
  }
  for (const text of roundTripTexts) {
    const decoded = tokenizer.decode(tokenizer.encode(text));
    if (decoded !== text) {
      fault(`The tokenizer encodes ${JSON.stringify(text)} and decodes it to ${JSON.stringify(decoded)}`);
    }
  }
  for (const [key, own] of [
    ["bos_token_id", tokenizer.bosId],
    ["eos_token_id", tokenizer.eosId],
  ] as const) {
    const claimed = special[key];
    if (typeof claimed === "number" && own !== undefined && claimed !== own) {
      fault(`The language model's config.json has ${key} ${claimed}, but the tokenizer has ${own}`);
    }
  }
  for (const token of controlTokens[template]) {
    if (tokenizer.encode(token).length === 1) continue;
    fault(
      `The prompt template is ${template}, but the tokenizer has no token ${token}`,
      `Set "prompt_template" in config.json to the template that the language model was trained with.`,
    );
  }
}

export interface UsedPart {
  readonly checkpoint: Checkpoint;
  readonly names: ReadonlySet<string>;
}

const damagedFileRemedy = "The file is damaged. Download it again, or import the model again.";

/** Checks that all used tensors are finite and not all zero. @param onBytes called with the bytes of each tensor */
export async function checkValues(
  findings: Findings,
  parts: readonly UsedPart[],
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  for (const { checkpoint, names } of parts) {
    for (const name of names) {
      signal?.throwIfAborted();
      const info = checkpoint.tensors.get(name);
      if (!info) continue;
      const where = `${checkpoint.path}, tensor "${name}"`;
      await findings.attempt("values", async () => {
        let [nonFinite, isZero] = [0, true];
        const inspect = (values: Float32Array) => {
          // Multiplied by 0, every finite value is 0. Faster than a test of each value, and most tensors have none to count.
          let [probe, magnitude] = [0, 0];
          for (let i = 0; i < values.length; i++) {
            const value = values[i] as number;
            probe += value * 0;
            magnitude += Math.abs(value);
          }
          if (probe !== 0) nonFinite += values.filter((value) => !Number.isFinite(value)).length;
          if (magnitude !== 0) isZero = false;
        };
        // In a block-quantized matrix, only scales and minima can be non-finite.
        const matrix = checkpoint.matrix(name);
        if (matrix instanceof BlockMatrix) {
          const { scales, minima } = await matrix.load();
          inspect(scales);
          if (minima) inspect(minima);
        } else for await (const values of strips(checkpoint, info, 1)) inspect(values);
        if (nonFinite > 0) {
          findings.fault("values", `${where}: ${nonFinite} values are infinite or NaN`, damagedFileRemedy);
        } else if (isZero && sizeOf(info.shape) > 1 && info.shape.length > 1) {
          findings.fault("values", `${where}: all ${sizeOf(info.shape)} values are zero`, damagedFileRemedy);
        }
      });
      onBytes(info.byteLength);
    }
  }
}

const sentences = [
  "The sun rises in the east and sets in the west, and at night we can see the moon and the stars.",
  "Water freezes at zero degrees and boils at one hundred degrees.",
  "A dog is an animal with four legs and a tail that likes to run after a ball.",
  "She opened the door, looked around the room, and said hello to everyone.",
  "In winter the days are short and the nights are long and cold.",
  "He went to the shop to buy bread, milk, and a dozen eggs.",
];

/** Perplexity of random weights is far above this; that of trained models with 135M parameters far below the second limit. */
const faultPerplexity = 1000;
const notePerplexity = 150;

/** Measures the perplexity of plain English sentences. @returns undefined if it cannot be measured */
export async function checkLanguage(
  findings: Findings,
  llm: OpenLlama,
  options: LayerwiseOptions,
): Promise<number | undefined> {
  const ids = sentences.map((sentence) => llm.tokenizer.encode(sentence, { bos: true }));
  const rows = llm.checkpoint.tensors.get("model.embed_tokens.weight")?.shape[0] ?? 0;
  // Ids beyond the embedding table are reported by the tokenizer check.
  const texts = ids.filter((text) => text.length > 1 && text.every((id) => id < rows));
  if (texts.length === 0) return undefined;
  const result = await computeLayerwiseLoss(llm, texts, options);
  if ("brokenAt" in result) {
    findings.fault(
      "language",
      `The output of ${result.brokenAt} is infinite or NaN`,
      "These weights are damaged. Import the model again from intact files.",
    );
    return undefined;
  }
  const perplexity = Math.exp(result.loss);
  const found = `The perplexity of the language model on plain English is ${Math.round(perplexity)}`;
  const causes =
    "Usual causes: a delta that was not applied to its base (minigpt4 delta apply), another model's tokenizer, damaged or badly quantized weights.";
  if (perplexity > faultPerplexity) findings.fault("language", `${found}: its text is noise`, causes);
  else if (perplexity > notePerplexity)
    findings.note("language", `${found}; that of trained models is below ${notePerplexity}`, causes);
  return perplexity;
}
