/** The parts of a model folder, opened each by itself: where one is wrong, the others can still be looked at. */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Checkpoint, openCheckpoint } from "../../checkpoints/checkpoint.ts";
import { readJournal } from "../../checkpoints/journal.ts";
import { sha256OfFile } from "../../checkpoints/partial-file.ts";
import type { PullOptions } from "../../checkpoints/pull.ts";
import { importJournal } from "../../models/import/import.ts";
import type { LlamaConfig } from "../../models/llama.ts";
import { llamaConfigFromJson } from "../../models/llama-config.ts";
import { findLlm, readDescription } from "../../models/model-folder.ts";
import { openLlama, readJson } from "../../models/open-llama.ts";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer.ts";
import type { Findings } from "./finding.ts";

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
  const json = await readJson(join(path, "config.json")).catch(() => undefined);
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
    else if ((await sha256OfFile(file, signal)) !== sha256)
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
  const json = await findings.attempt("config", () => readJson(file));
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
