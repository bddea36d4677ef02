/** Language models that are published as the difference to another one (Vicuna v0: `lmsys/vicuna-7b-delta-v0`), put together. */

import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { checkDiskSpace, Journal, type VerifyOptions, verifyFiles } from "../files/journal.ts";
import { readJsonFile } from "../files/json-file.ts";
import type { TensorInfo } from "../formats/checkpoint.ts";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { groupBytes, intoShards, type TensorGroup, writeShards } from "../formats/safetensors-writer.ts";
import { llamaConfigFromJson, smallFiles } from "../models/llama-folder.ts";
import { usedByLlama } from "../models/used-tensors.ts";
import { bytesOf } from "../tensor/array.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { strips, toFloat16 } from "./convert-tensor.ts";

// Differences between language models, which are published in place of models and mistaken for them.

/** The norm before the output layer multiplies by 1 to 2 in every known model; in a difference it is near 0. */
const smallestNorm = 0.1;
const lastNorm = "model.norm.weight";

/** Whether these weights are a difference that was not added to its base yet. */
export async function isUnmergedDelta(source: WeightSource): Promise<boolean> {
  if (!source.tensors.has(lastNorm)) return false;
  const values = await source.readFloat32(lastNorm);
  const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
  return mean < smallestNorm;
}

/** What to say about it. */
export function deltaMessage(path: string): string {
  return (
    `${path} is a difference to another model (its norm weights are near 0, not near 1), not a model: ` +
    "add it to the LLaMA that it was made for with minigpt4 delta apply --base LLAMA --delta VICUNA --out FOLDER"
  );
}

// Which file or folder something was made from, so that another one is noticed.

export interface Origin {
  readonly name: string;
  /** Of a folder, all files in it together. */
  readonly bytes: number;
  /** When it was last changed, in milliseconds; of a folder, the latest of its files. */
  readonly modified: number;
}

export async function originOf(path: string): Promise<Origin> {
  const status = await stat(path);
  const files = status.isDirectory() ? (await readdir(path)).map((name) => join(path, name)) : [path];
  const all = (await Promise.all(files.map((file) => stat(file)))).filter((file) => file.isFile());
  return {
    name: basename(resolve(path)),
    bytes: all.reduce((sum, { size }) => sum + size, 0),
    modified: all.reduce((latest, { mtimeMs }) => Math.max(latest, Math.round(mtimeMs)), 0),
  };
}

export interface DeltaOptions extends VerifyOptions {
  /** The model that the difference was made from: a folder as Hugging Face has it. */
  readonly base: string;
  /** The difference, in a folder of the same form; its config and tokenizer are the new model's. */
  readonly delta: string;
  readonly out: string;
  /** Bytes of a shard. */
  readonly largestShard?: number | undefined;
}

export interface Merged {
  readonly path: string;
  readonly bytes: number;
  readonly tensors: number;
  /** Rows of tables that only the difference has: added tokens. */
  readonly addedRows: number;
}

/** What is left in the folder beside the model: what it was made of, and the SHA-256 of its files. */
const deltaJournal = "delta.json";

/**
 * Writes base + difference in float16, tensor by tensor. What was interrupted goes on where it was when it is started
 * again with the same folders.
 *
 * @throws Error before anything is written, if the two do not fit each other or are not what they should be
 */
export async function applyDelta(options: DeltaOptions): Promise<Merged> {
  const { out, signal, onProgress } = options;
  const base = await openCheckpoint(options.base);
  const delta = await openCheckpoint(options.delta).catch(async (error) => {
    await base.close();
    throw error;
  });
  try {
    await checkFit(base, delta, options);
    const names = wanted(delta);
    const groups = names.map((name) => merged(base, delta, name));
    const shards = intoShards(groups, options.largestShard);
    await mkdir(out, { recursive: true });
    const work = { base: await originOf(options.base), delta: await originOf(options.delta) };
    const journal = await Journal.open(out, deltaJournal, work);
    const sizes = [...shards].map(([name, own]) => ({ name, size: own.reduce((sum, g) => sum + groupBytes(g), 0) }));
    const total = sizes.reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    for (const { name, size } of sizes) if (await journal.has(name)) done += size;
    await checkDiskSpace(out, total - done);
    for (const name of smallFiles) {
      const from = [options.delta, options.base].map((folder) => join(folder, name)).find((path) => existsSync(path));
      if (from) await copyFile(from, join(out, name));
    }
    const onBytes = (bytes: number) => {
      done += bytes;
      onProgress?.("Writing", done, total);
    };
    await writeShards(out, shards, journal, "", { signal, onBytes });
    await verifyFiles(out, journal, { signal, onProgress });
    await journal.finish();
    const rows = (checkpoint: Checkpoint) => checkpoint.tensors.get("model.embed_tokens.weight")?.shape[0] ?? 0;
    return { path: resolve(out), bytes: total, tensors: names.length, addedRows: rows(delta) - rows(base) };
  } finally {
    await base.close();
    await delta.close();
  }
}

/** All tensors but the tables of the rotary embedding, which old files hold and nothing needs. */
function wanted({ tensors }: Checkpoint): string[] {
  return [...tensors.keys()].filter((name) => !name.endsWith(".rotary_emb.inv_freq"));
}

async function checkFit(base: Checkpoint, delta: Checkpoint, paths: DeltaOptions): Promise<void> {
  const configPath = join(paths.delta, "config.json");
  const config = llamaConfigFromJson(await readJsonFile(configPath), configPath);
  const [ofBase, ofDelta] = [new Set(wanted(base)), new Set(wanted(delta))];
  const lacking = (names: Iterable<string>, of: ReadonlySet<string>) => [...names].filter((name) => !of.has(name));
  for (const [path, missing] of [
    [paths.base, lacking(ofDelta, ofBase)],
    [paths.delta, lacking(ofBase, ofDelta)],
  ] as const) {
    if (missing.length === 0) continue;
    const more = missing.length > 5 ? ` and ${missing.length - 5} more` : "";
    throw new Error(
      `${path} lacks ${missing.slice(0, 5).join(", ")}${more}, which the other folder has; they are no model and its difference`,
    );
  }
  for (const name of ofDelta) {
    const [own, other] = [base, delta].map(({ tensors }) => tensors.get(name)?.shape ?? []);
    if (own && other && canBeAdded(own, other)) continue;
    throw new Error(
      `"${name}" is ${formatShape(own ?? [])} in ${paths.base}, but ${formatShape(other ?? [])} in ${paths.delta}; ` +
        "are these of the same size (7B, 13B)?",
    );
  }
  usedByLlama(delta, config);
  if (!(await isUnmergedDelta(delta))) {
    throw new Error(
      `${paths.delta} is no difference, but a whole model (its norm weights are near 1); are --base and --delta exchanged?`,
    );
  }
  if (await isUnmergedDelta(base)) throw new Error(deltaMessage(paths.base));
}

/** Whether the shapes are equal, or the difference has rows more: tokens that were added to the vocabulary. */
function canBeAdded(base: readonly number[], delta: readonly number[]): boolean {
  if (sameShape(base, delta)) return true;
  return base.length === 2 && delta.length === 2 && base[1] === delta[1] && (base[0] ?? 0) < (delta[0] ?? 0);
}

/** A sum; rows that the base lacks are zero there. */
function merged(base: Checkpoint, delta: Checkpoint, name: string): TensorGroup {
  const [ofBase, ofDelta] = [base, delta].map(({ tensors }) => tensors.get(name)) as [TensorInfo, TensorInfo];
  return {
    tensors: [{ name, dtype: "float16", shape: ofDelta.shape }],
    async *load() {
      const columns = ofDelta.shape.at(-1) ?? 1;
      const others = strips(base, ofBase, columns);
      for await (const values of strips(delta, ofDelta, columns)) {
        const other = (await others.next()).value ?? new Float32Array(0);
        const sums = values.map((value: number, i: number) => value + (other[i] ?? 0));
        yield bytesOf(toFloat16(delta, ofDelta, sums));
      }
    },
  };
}
