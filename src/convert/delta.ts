/** Language models that are published as a delta to a base model (Vicuna v0: `lmsys/vicuna-7b-delta-v0`). */

import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { checkDiskSpace, Journal, type VerifyOptions, verifyFiles } from "../files/journal.ts";
import { readJsonFile } from "../files/json-file.ts";
import type { TensorInfo } from "../formats/checkpoint.ts";
import { type Checkpoint, openCheckpoint } from "../formats/open.ts";
import { groupBytes, splitIntoShards, type TensorGroup, writeShards } from "../formats/safetensors-writer.ts";
import { llamaConfigFromJson, smallFiles } from "../models/llama-folder.ts";
import { usedByLlama } from "../models/used-tensors.ts";
import { bytesOf } from "../tensor/array.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { strips, toFloat16 } from "./convert-tensor.ts";

/** The norm before the output layer multiplies by 1 to 2 in every known model; in a delta it is near 0. */
const smallestNorm = 0.1;
const lastNorm = "model.norm.weight";

/** Whether these weights are a delta that was not merged with its base model. */
export async function isUnmergedDelta(source: WeightSource): Promise<boolean> {
  if (!source.tensors.has(lastNorm)) return false;
  const values = await source.readFloat32(lastNorm);
  const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
  return mean < smallestNorm;
}

/** The error message for unmerged delta weights. */
export function deltaMessage(path: string): string {
  return (
    `${path} contains delta weights, not a model (its norm weights are near 0, not near 1). ` +
    "Merge them with their base model: minigpt4 delta apply --base LLAMA --delta VICUNA --out FOLDER"
  );
}

/** Identifies an input file or folder, so that a resumed job notices a different one. */
export interface Origin {
  readonly name: string;
  /** Of a folder, all files in it together. */
  readonly bytes: number;
  /** When it was last changed, in milliseconds; of a folder, the latest of its files. */
  readonly modified: number;
}

export async function describeOrigin(path: string): Promise<Origin> {
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
  /** The base model: a Hugging Face folder. */
  readonly base: string;
  /** The delta: a Hugging Face folder, whose config and tokenizer the new model gets. */
  readonly delta: string;
  readonly out: string;
  /** Size of a shard in bytes. @default 2000000000 */
  readonly maxShardBytes?: number;
}

export interface Merged {
  readonly path: string;
  readonly bytes: number;
  readonly tensors: number;
  /** Rows of the embedding that only the delta has: added tokens. */
  readonly addedRows: number;
}

/** Journal in the model's folder: its inputs, and the SHA-256 of its files. */
const deltaJournal = "delta.json";

/**
 * Writes base + delta in float16, tensor by tensor. An interrupted merge resumes when it is called again with the same
 * folders.
 *
 * @throws Error before anything is written, if the two do not match or are not a base model and its delta
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
    const names = modelTensors(delta);
    const groups = names.map((name) => addDelta(base, delta, name));
    const shards = splitIntoShards(groups, options.maxShardBytes);
    await mkdir(out, { recursive: true });
    const work = { base: await describeOrigin(options.base), delta: await describeOrigin(options.delta) };
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
    await writeShards(out, shards, { journal, signal, onBytes });
    await verifyFiles(out, journal, { signal, onProgress });
    await journal.finish();
    const rows = (checkpoint: Checkpoint) => checkpoint.tensors.get("model.embed_tokens.weight")?.shape[0] ?? 0;
    return { path: resolve(out), bytes: total, tensors: names.length, addedRows: rows(delta) - rows(base) };
  } finally {
    await base.close();
    await delta.close();
  }
}

/** All tensors except the tables of the rotary embedding that old files contain. */
function modelTensors({ tensors }: Checkpoint): string[] {
  return [...tensors.keys()].filter((name) => !name.endsWith(".rotary_emb.inv_freq"));
}

async function checkFit(base: Checkpoint, delta: Checkpoint, paths: DeltaOptions): Promise<void> {
  const configPath = join(paths.delta, "config.json");
  const config = llamaConfigFromJson(await readJsonFile(configPath), configPath);
  const [baseNames, deltaNames] = [new Set(modelTensors(base)), new Set(modelTensors(delta))];
  const missingFrom = (own: ReadonlySet<string>, other: Iterable<string>) =>
    [...other].filter((name) => !own.has(name));
  for (const [path, missing] of [
    [paths.base, missingFrom(baseNames, deltaNames)],
    [paths.delta, missingFrom(deltaNames, baseNames)],
  ] as const) {
    if (missing.length === 0) continue;
    const more = missing.length > 5 ? ` and ${missing.length - 5} more` : "";
    throw new Error(
      `${path} lacks ${missing.slice(0, 5).join(", ")}${more}, which the other folder has. These are not a base model and its delta`,
    );
  }
  for (const name of deltaNames) {
    const [own, other] = [base, delta].map(({ tensors }) => tensors.get(name)?.shape ?? []);
    if (own && other && canBeAdded(own, other)) continue;
    throw new Error(
      `"${name}" is ${formatShape(own ?? [])} in ${paths.base}, but ${formatShape(other ?? [])} in ${paths.delta}; ` +
        "are both of the same size (7B, 13B)?",
    );
  }
  usedByLlama(delta, config);
  if (!(await isUnmergedDelta(delta))) {
    throw new Error(
      `${paths.delta} is a complete model, not a delta (its norm weights are near 1); are --base and --delta swapped?`,
    );
  }
  if (await isUnmergedDelta(base)) throw new Error(deltaMessage(paths.base));
}

/** Whether the shapes are equal, or the delta has more rows: tokens that were added to the vocabulary. */
function canBeAdded(base: readonly number[], delta: readonly number[]): boolean {
  if (sameShape(base, delta)) return true;
  return base.length === 2 && delta.length === 2 && base[1] === delta[1] && (base[0] ?? 0) < (delta[0] ?? 0);
}

/** Adds a tensor of the delta to that of the base; rows missing in the base count as zero. */
function addDelta(base: Checkpoint, delta: Checkpoint, name: string): TensorGroup {
  const [baseInfo, deltaInfo] = [base, delta].map(({ tensors }) => tensors.get(name)) as [TensorInfo, TensorInfo];
  return {
    tensors: [{ name, dtype: "float16", shape: deltaInfo.shape }],
    async *load() {
      const columns = deltaInfo.shape.at(-1) ?? 1;
      const others = strips(base, baseInfo, columns);
      for await (const values of strips(delta, deltaInfo, columns)) {
        const other = (await others.next()).value ?? new Float32Array(0);
        const sums = values.map((value: number, i: number) => value + (other[i] ?? 0));
        yield bytesOf(toFloat16(delta, deltaInfo, sums));
      }
    },
  };
}
