/** Writes safetensors files larger than memory tensor by tensor, and splits them into shards with an index. */
import { join } from "node:path";
import { streamFileAtomic, type WriteOptions, type WrittenFile } from "../files/atomic.ts";
import type { Journal } from "../files/journal.ts";
import { writeJsonFile } from "../files/json-file.ts";
import { countBytes, safetensorsHeader, type TensorSpec } from "./safetensors.ts";

/** Tensors that are converted together, from one source. */
export interface TensorGroup {
  readonly tensors: readonly TensorSpec[];
  /** Streams their bytes, one tensor after the other. */
  load(): AsyncIterable<Uint8Array>;
}

/** Metadata that transformers expects. */
const metadata = { format: "pt" };

/** Writes one file atomically. @throws Error if a group streams more or fewer bytes than its tensors have */
export async function streamSafetensors(
  path: string,
  groups: readonly TensorGroup[],
  options: WriteOptions = {},
): Promise<WrittenFile> {
  const header = safetensorsHeader(
    path,
    groups.flatMap(({ tensors }) => tensors),
    metadata,
  );
  const chunks = async function* () {
    yield header;
    for (const group of groups) {
      let bytes = 0;
      for await (const chunk of group.load()) {
        yield chunk;
        bytes += chunk.length;
      }
      if (bytes !== groupBytes(group)) {
        throw new Error(`${path}: ${group.tensors[0]?.name} should have ${groupBytes(group)} bytes, but has ${bytes}`);
      }
    }
  };
  return streamFileAtomic(path, chunks(), options);
}

/**
 * Joins groups with the same kinds of tensors into one: all first tensors, then all second ones, and so on. All but the
 * first tensors are kept in memory until they are written.
 */
export function joinGroups(groups: readonly TensorGroup[]): TensorGroup {
  const kinds = groups[0]?.tensors.length ?? 0;
  const kind = (i: number) => groups.flatMap(({ tensors }) => tensors[i] ?? []);
  return {
    tensors: Array.from({ length: kinds }, (_, i) => kind(i)).flat(),
    async *load() {
      const others: Uint8Array[] = [];
      for (const group of groups) {
        const [first] = group.tensors;
        let left = first ? countBytes(first) : 0;
        const rest: Uint8Array[] = [];
        for await (const chunk of group.load()) {
          const own = chunk.subarray(0, left);
          left -= own.length;
          if (own.length > 0) yield own;
          if (own.length < chunk.length) rest.push(chunk.subarray(own.length));
        }
        others.push(Buffer.concat(rest));
      }
      for (let i = 1; i < kinds; i++) {
        for (const [at, { tensors }] of groups.entries()) {
          const start = tensors.slice(1, i).reduce((sum, tensor) => sum + countBytes(tensor), 0);
          const tensor = tensors[i];
          if (tensor) yield others[at]?.subarray(start, start + countBytes(tensor)) ?? new Uint8Array();
        }
      }
    },
  };
}

/** Size of a group in bytes. */
export function groupBytes({ tensors }: TensorGroup): number {
  return tensors.reduce((sum, tensor) => sum + countBytes(tensor), 0);
}

/** Default size of a shard. An interrupted job resumes at the shard it was writing. */
const defaultShardBytes = 2_000_000_000;

/**
 * Splits groups into shards of at most `maxBytes` (or one larger group), by file name: `model.safetensors`, or Hugging Face's
 * names of shards. In each, groups whose size is not a multiple of 8 come last, so that the others are aligned.
 */
export function splitIntoShards(
  groups: readonly TensorGroup[],
  maxBytes = defaultShardBytes,
): Map<string, TensorGroup[]> {
  const shards: TensorGroup[][] = [];
  let room = 0;
  for (const group of groups) {
    const bytes = groupBytes(group);
    if (bytes > room || shards.length === 0) {
      shards.push([]);
      room = maxBytes;
    }
    shards.at(-1)?.push(group);
    room -= bytes;
  }
  const isOdd = (group: TensorGroup) => Number(groupBytes(group) % 8 !== 0);
  const number = (n: number) => `${n}`.padStart(5, "0");
  return new Map(
    shards.map((shard, i) => [
      shards.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
      shard.toSorted((a, b) => isOdd(a) - isOdd(b)),
    ]),
  );
}

/** Options of `writeShards`. */
export interface WriteShardsOptions extends WriteOptions {
  readonly journal: Journal;
  /** Path of the folder in the journal's, ending with a slash. @default "" */
  readonly prefix?: string;
}

/** Writes the shards that are not in the journal into a folder, and the index if there are several. */
export async function writeShards(
  folder: string,
  shards: ReadonlyMap<string, readonly TensorGroup[]>,
  { journal, prefix = "", ...options }: WriteShardsOptions,
): Promise<void> {
  for (const [name, groups] of shards) {
    if (await journal.has(prefix + name)) continue;
    await journal.record(prefix + name, await streamSafetensors(join(folder, name), groups, options));
  }
  if (shards.size === 1) return;
  const fileByTensor = [...shards].flatMap(([file, groups]) =>
    groups.flatMap(({ tensors }) => tensors.map(({ name }) => [name, file] as const)),
  );
  const total = [...shards.values()].flat().reduce((sum, group) => sum + groupBytes(group), 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(fileByTensor) };
  await writeJsonFile(join(folder, "model.safetensors.index.json"), index);
}
