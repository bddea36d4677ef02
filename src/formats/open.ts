/** Opens weights of any format: one file, several named by an index, or a Hugging Face folder. */

import { access, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, normalize, sep } from "node:path";
import { z } from "zod";
import { inFile, isMissing, quote } from "../files/errors.ts";
import { RandomAccessFile } from "../files/file.ts";
import { parseJson } from "../files/json.ts";
import type { Checkpoint, TensorInfo } from "./checkpoint.ts";
import { openGguf } from "./gguf/gguf.ts";
import { withStoredMatrices } from "./quantized-safetensors.ts";
import { openSafetensors } from "./safetensors.ts";
import { openTorch } from "./torch/read.ts";

export type { Checkpoint, TensorInfo } from "./checkpoint.ts";

/** Weight files of Hugging Face folders, in order of preference. */
const folderFiles = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];

/**
 * Opens weights: a safetensors, PyTorch or GGUF file (recognized by its content), an index of shards (`*.json`), or a
 * Hugging Face folder (safetensors preferred over `.bin`).
 *
 * @throws Error naming the file, and what in it is wrong
 *
 * @example
 * ```ts
 * import { openCheckpoint } from "minigpt4/formats";
 *
 * await using checkpoint = await openCheckpoint("pytorch_model.bin");
 * const [name = ""] = checkpoint.tensors.keys();
 * const values = await checkpoint.readFloat32(name);
 * console.log(name, values.length);
 * ```
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  if ((await stat(path)).isDirectory()) return openCheckpoint(await findWeights(path));
  const checkpoint = await (path.endsWith(".json") ? openSharded(path) : openSingle(path));
  try {
    return withStoredMatrices(checkpoint);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function findWeights(folder: string): Promise<string> {
  for (const name of folderFiles) {
    const path = join(folder, name);
    const exists = await access(path).then(
      () => true,
      () => false,
    );
    if (exists) return path;
  }
  throw new Error(`${folder}: has no weights; expected one of ${folderFiles.join(", ")}`);
}

/** Opens one weight file, recognized by its content. @throws Error naming the file if its format is unknown or it is damaged */
async function openSingle(path: string): Promise<Checkpoint> {
  const open = await inFile(path, () => recognizeFormat(path));
  return open(path);
}

async function recognizeFormat(path: string): Promise<(path: string) => Promise<Checkpoint>> {
  const file = await RandomAccessFile.open(path);
  try {
    const head = await file.read(0, Math.min(16, file.size));
    const startsWith = (...bytes: number[]) => bytes.every((byte, i) => head[i] === byte);
    if (startsWith(...asciiBytes("GGUF"))) return openGguf;
    if (startsWith(...asciiBytes("PK"))) return openTorch;
    // safetensors: a JSON header follows the 8 bytes of its length, which may look like the start of a pickle.
    if (head[8] === asciiBytes("{")[0]) return openSafetensors;
    if (startsWith(0x80)) return openTorch;
  } finally {
    await file.close();
  }
  throw new Error("is not a weight file; supported are safetensors, PyTorch (.pth, .bin) and GGUF");
}

function asciiBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

const maxIndexBytes = 100_000_000;
const indexSchema = z.object({
  metadata: z.record(z.string(), z.unknown()).default({}),
  weight_map: z.record(z.string(), z.string()),
});

/** Opens `model.safetensors.index.json` or `pytorch_model.bin.index.json`. @throws Error naming a missing shard or tensor */
function openSharded(path: string): Promise<Checkpoint> {
  return inFile(path, async () => {
    const index = await readIndex(path);
    const shards = new Map<string, Checkpoint>();
    try {
      const shardByTensor = new Map<string, Checkpoint>();
      for (const [tensor, name] of Object.entries(index.weight_map)) {
        const shard = shards.get(name) ?? (await openShard(path, name));
        shards.set(name, shard);
        if (!shard.tensors.has(tensor))
          throw new Error(`lists tensor ${quote(tensor)} in ${quote(name)}, but that file does not have it`);
        shardByTensor.set(tensor, shard);
      }
      return new ShardedCheckpoint(path, index.metadata, shardByTensor);
    } catch (error) {
      await closeAll(shards.values());
      throw error;
    }
  });
}

async function readIndex(path: string): Promise<z.infer<typeof indexSchema>> {
  const file = await RandomAccessFile.open(path);
  try {
    if (file.size > maxIndexBytes) throw new Error(`is an index of ${file.size} bytes; the limit is ${maxIndexBytes}`);
    const index = indexSchema.safeParse(parseJson(await file.read(0, file.size)));
    if (!index.success) throw new Error(`is not an index of shards: ${z.prettifyError(index.error)}`);
    return index.data;
  } finally {
    await file.close();
  }
}

async function openShard(indexPath: string, name: string): Promise<Checkpoint> {
  const outside = isAbsolute(name) || normalize(name).split(sep).includes("..");
  if (outside) throw new Error(`lists the shard ${quote(name)}, which is outside its folder`);
  const path = join(dirname(indexPath), name);
  try {
    return await openSingle(path);
  } catch (error) {
    if (isMissing(error)) throw new Error(`the shard ${path} is missing; download it again`, { cause: error });
    throw error;
  }
}

async function closeAll(shards: Iterable<Checkpoint>): Promise<void> {
  await Promise.all([...shards].map((shard) => shard.close()));
}

class ShardedCheckpoint implements Checkpoint {
  readonly path: string;
  readonly format: Checkpoint["format"];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  private readonly shards: ReadonlyMap<string, Checkpoint>;

  /** @param shards the shard of each tensor */
  constructor(path: string, metadata: Record<string, unknown>, shards: ReadonlyMap<string, Checkpoint>) {
    const [first] = shards.values();
    if (!first) throw new Error("lists no tensors");
    this.path = path;
    this.format = first.format;
    this.metadata = Object.assign({ ...metadata }, ...[...shards.values()].map((shard) => shard.metadata));
    this.tensors = new Map(
      [...shards].flatMap(([name, { tensors }]) => {
        const info = tensors.get(name);
        return info ? [[name, info]] : [];
      }),
    );
    this.shards = shards;
  }

  async readFloat32(name: string): Promise<Float32Array> {
    return this.findShard(name).readFloat32(name);
  }

  async readBytes(name: string): Promise<Uint8Array> {
    return this.findShard(name).readBytes(name);
  }

  matrix(name: string): ReturnType<Checkpoint["matrix"]> {
    return this.findShard(name).matrix(name);
  }

  close(): Promise<void> {
    return closeAll(new Set(this.shards.values()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private findShard(name: string): Checkpoint {
    const shard = this.shards.get(name);
    if (!shard) throw new Error(`${this.path}, tensor ${quote(name)}: not in this index`);
    return shard;
  }
}
