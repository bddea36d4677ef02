/** What the doctor looks at, and what it finds. */
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

/** In the order in which they are looked at. */
export const checks = ["config", "files", "dimensions", "values", "delta", "tokenizer", "language", "images"] as const;
export type Check = (typeof checks)[number];

export interface Finding {
  readonly check: Check;
  /** A fault keeps the model from working; a note does not. */
  readonly kind: "fault" | "note";
  readonly what: string;
  /** What can be done about it. */
  readonly remedy?: string | undefined;
}

/** Collects what the checks find. */
export class Findings {
  readonly all: Finding[] = [];

  fault(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "fault", what, remedy });
  }

  note(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "note", what, remedy });
  }

  /** The result of `work`; what it throws is a fault, and the result undefined. */
  async attempt<T>(check: Check, work: () => T | Promise<T>, remedy?: string): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.fault(check, error instanceof Error ? error.message : String(error), remedy);
      return undefined;
    }
  }
}

// The parts of a model folder, opened each by itself: where one is wrong, the others can still be looked at.

export type Description = Awaited<ReturnType<typeof readDescription>>;

/** Undefined is what cannot be opened. */
export interface LlmParts {
  readonly path: string;
  readonly checkpoint?: Checkpoint | undefined;
  readonly config?: LlamaConfig | undefined;
  readonly tokenizer?: Tokenizer | undefined;
  /** What `config.json` says, where there is one. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Reads `config.json`, and says what a folder without one is. */
export async function checkDescription(findings: Findings, path: string): Promise<Description | undefined> {
  const entry = await stat(path).catch(() => undefined);
  if (!entry) {
    findings.fault("config", `There is no folder ${path}`);
    return undefined;
  }
  if (!entry.isDirectory()) {
    findings.fault(
      "config",
      `${path} is a file, not a model folder`,
      "minigpt4 import makes a model folder of the released files.",
    );
    return undefined;
  }
  const journal = await findings.attempt("files", () => readJournal(join(path, importJournal)));
  if (journal && !existsSync(join(path, "config.json"))) {
    findings.fault(
      "config",
      `${path} is an import that was not finished`,
      "Give the same minigpt4 import command again; it goes on where it was.",
    );
    return undefined;
  }
  const json = await readJsonFile(join(path, "config.json")).catch(() => undefined);
  if (isRecord(json) && json.model_type !== "minigpt4" && "hidden_size" in json) {
    findings.fault(
      "config",
      `${path} is the folder of a language model, not of a MiniGPT-4`,
      "minigpt4 import makes a model folder of it and of the image encoder's files.",
    );
    return undefined;
  }
  return findings.attempt(
    "config",
    () => readDescription(path),
    "minigpt4 import makes a model folder of the released files.",
  );
}

/** Compares the files of an import with what was written, all of them: also such as no other check opens. */
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
    const again = "Give the same minigpt4 import command again, or copy the folder again.";
    if (!status) findings.fault("files", `${file} is missing`, again);
    else if (status.size !== bytes)
      findings.fault("files", `${file} has ${status.size} bytes, but ${bytes} were written`, again);
    else if ((await sha256File(file, { signal })) !== sha256)
      findings.fault("files", `${file} has changed since it was written (SHA-256)`, again);
    done += bytes;
    onProgress(done, total);
  }
}

/** Files of the image part, by their names in `config.json`. */
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
    "Copy it from the folder that the language model came in.",
  );
  const checkpoint = await findings.attempt("files", () => openCheckpoint(path));
  return { path, config, tokenizer, checkpoint, json: isRecord(json) ? json : {} };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// Whether images become image tokens that are numbers and differ.

/** Runs the image part on two images: one of noise, one of a single colour. */
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
  const remedy = "The weights of encoder, Q-Former or projection are damaged, or not those that belong together.";
  if (![first, second].every((tokens) => tokens.every(Number.isFinite))) {
    findings.fault("images", "Image tokens are infinite or no numbers", remedy);
    return;
  }
  const differ = first.some((value, i) => Math.abs(value - (second[i] as number)) > 1e-6);
  if (!differ) findings.fault("images", "Quite different images give the same image tokens", remedy);
}

// Whether a tokenizer is the one that a language model was trained with, as far as that shows without reading.

const remedy = "Take the tokenizer's files from the folder that the language model came in.";

/** Texts that every tokenizer gives back as they were. */
const texts = ["The quick brown fox, 1234567890!", "Ünïcödé, 東京, Ελλάδα", "a smile: \u{1f642}"];

/** Tables are often filled up to a round number of rows; more than this share is another vocabulary. */
const largestFilling = 0.1;

/** What a template writes and a tokenizer should know as one token. */
const controlTokens: Readonly<Record<PromptTemplate["name"], readonly string[]>> = {
  "vicuna-v0": [],
  "llama-2": ["<s>"],
  chatml: ["<|im_start|>", "<|im_end|>"],
  plain: [],
};

export function checkTokenizer(
  findings: Findings,
  tokenizer: Tokenizer,
  { vocabSize }: LlamaConfig,
  template: PromptTemplate["name"],
  /** What the language model's own config says of its special tokens. */
  special: { readonly bos_token_id?: unknown; readonly eos_token_id?: unknown },
): void {
  const fault = (what: string, cure = remedy) => findings.fault("tokenizer", what, cure);
  if (tokenizer.vocabSize > vocabSize) {
    fault(`The tokenizer has ${tokenizer.vocabSize} tokens, but the language model only ${vocabSize} embeddings`);
  } else if (tokenizer.vocabSize < (1 - largestFilling) * vocabSize) {
    fault(
      `The tokenizer has ${tokenizer.vocabSize} tokens, but the language model ${vocabSize} embeddings: it is another model's`,
    );
  }
  for (const text of texts) {
    const back = tokenizer.decode(tokenizer.encode(text));
    if (back !== text) fault(`The tokenizer makes ${JSON.stringify(back)} of ${JSON.stringify(text)}`);
  }
  for (const [key, own] of [
    ["bos_token_id", tokenizer.bosId],
    ["eos_token_id", tokenizer.eosId],
  ] as const) {
    const claimed = special[key];
    if (typeof claimed === "number" && own !== undefined && claimed !== own) {
      fault(`The language model's config.json says ${key} ${claimed}, but the tokenizer has ${own}`);
    }
  }
  for (const token of controlTokens[template]) {
    if (tokenizer.encode(token).length === 1) continue;
    fault(
      `Conversations are written as ${template}, but the tokenizer does not know ${token}`,
      `Set "prompt_template" in config.json to the form that the language model was trained with.`,
    );
  }
}

// Whether weights are numbers, and not a hole in a file.

export interface UsedPart {
  readonly checkpoint: Checkpoint;
  readonly names: ReadonlySet<string>;
}

const again = "The file is damaged: fetch it again, or import the model again.";

/** Looks at all tensors that are used. @param onBytes told how many more have been read */
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
        let [strange, zeros] = [0, true];
        const look = (values: Float32Array) => {
          // Times zero, only what is infinite or no number is not zero; those are rare enough to be counted afterwards.
          let [probe, sizes] = [0, 0];
          for (let i = 0; i < values.length; i++) {
            const value = values[i] as number;
            probe += value * 0;
            sizes += Math.abs(value);
          }
          if (probe !== 0) strange += values.filter((value) => !Number.isFinite(value)).length;
          if (sizes !== 0) zeros = false;
        };
        // Of blocks only the scales can be no numbers.
        const matrix = checkpoint.matrix(name);
        if (matrix instanceof BlockMatrix) {
          const { scales, minima } = await matrix.load();
          look(scales);
          if (minima) look(minima);
        } else for await (const values of strips(checkpoint, info, 1)) look(values);
        if (strange > 0) findings.fault("values", `${where}: ${strange} values are infinite or no numbers`, again);
        else if (zeros && sizeOf(info.shape) > 1 && info.shape.length > 1)
          findings.fault("values", `${where}: all of its ${sizeOf(info.shape)} values are zero`, again);
      });
      onBytes(info.byteLength);
    }
  }
}

// Whether a language model knows its language: noise is worse than any model that was trained.

const sentences = [
  "The sun rises in the east and sets in the west, and at night we can see the moon and the stars.",
  "Water freezes at zero degrees and boils at one hundred degrees.",
  "A dog is an animal with four legs and a tail that likes to run after a ball.",
  "She opened the door, looked around the room, and said hello to everyone.",
  "In winter the days are short and the nights are long and cold.",
  "He went to the shop to buy bread, milk, and a dozen eggs.",
];

/** Perplexity that small models (135M parameters) stay well below, and that noise is far above. */
const noise = 1000;
const strange = 150;

/** @returns the perplexity, where there is one */
export async function checkLanguage(
  findings: Findings,
  llm: OpenLlama,
  options: LayerwiseOptions,
): Promise<number | undefined> {
  const ids = sentences.map((sentence) => llm.tokenizer.encode(sentence, { bos: true }));
  const rows = llm.checkpoint.tensors.get("model.embed_tokens.weight")?.shape[0] ?? 0;
  // Ids that the table does not have are told of elsewhere.
  const texts = ids.filter((text) => text.length > 1 && text.every((id) => id < rows));
  if (texts.length === 0) return undefined;
  const result = await computeLayerwiseLoss(llm, texts, options);
  if ("brokenAt" in result) {
    findings.fault(
      "language",
      `What comes out of ${result.brokenAt} is infinite or no number`,
      "The weights of this place are damaged: import the model again, from files that are whole.",
    );
    return undefined;
  }
  const perplexity = Math.exp(result.loss);
  const found = `The language model finds plain English as surprising as a choice among ${Math.round(perplexity)} words (perplexity)`;
  const causes =
    "Usual causes: a difference that was not added to its base (minigpt4 delta apply), another model's tokenizer, damaged or badly rounded weights.";
  if (perplexity > noise) findings.fault("language", `${found}; what it says is noise`, causes);
  else if (perplexity > strange) findings.note("language", `${found}; trained models stay below ${strange}`, causes);
  return perplexity;
}
