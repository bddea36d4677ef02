/** Safetensors files larger than memory, written tensor by tensor, and split into shards with an index. */
import { join } from "node:path";
import { streamFileAtomic, type WriteOptions, type WrittenFile } from "../files/atomic.ts";
import type { Journal } from "../files/journal.ts";
import { writeJsonFile } from "../files/json-file.ts";
import { byteLengthOf, safetensorsHeader, type TensorSpec } from "./safetensors.ts";

/** Tensors that are made together, from one source. */
export interface TensorGroup {
  readonly tensors: readonly TensorSpec[];
  /** Their bytes, one tensor after the other. */
  load(): AsyncIterable<Uint8Array>;
}

/** What a written file claims of its origin, as PyTorch's users have it. */
const metadata = { format: "pt" };

/** Writes one file, beside `path` first and then renamed. @throws Error if a group gives more or fewer bytes than its tensors take */
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
 * Groups whose tensors are parts of the same kinds, as one in which each kind lies together: all first tensors, then all
 * second ones. What is not of the first kind is kept in memory until its turn.
 */
export function interleaved(groups: readonly TensorGroup[]): TensorGroup {
  const kinds = groups[0]?.tensors.length ?? 0;
  const kind = (i: number) => groups.flatMap(({ tensors }) => tensors[i] ?? []);
  return {
    tensors: Array.from({ length: kinds }, (_, i) => kind(i)).flat(),
    async *load() {
      const others: Uint8Array[] = [];
      for (const group of groups) {
        const [first] = group.tensors;
        let left = first ? byteLengthOf(first) : 0;
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
          const start = tensors.slice(1, i).reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
          const tensor = tensors[i];
          if (tensor) yield others[at]?.subarray(start, start + byteLengthOf(tensor)) ?? new Uint8Array();
        }
      }
    },
  };
}

export function groupBytes({ tensors }: TensorGroup): number {
  return tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
}

/** Of a shard, unless one tensor takes more. What is interrupted goes on at the shard that it was in. */
const maxShardBytes = 2_000_000_000;

/**
 * Groups by the file that they go into: `model.safetensors`, or shards named as Hugging Face names them. In each, groups
 * of odd sizes come last, so that all before them are aligned.
 */
export function intoShards(groups: readonly TensorGroup[], largest = maxShardBytes): Map<string, TensorGroup[]> {
  const shards: TensorGroup[][] = [];
  let room = 0;
  for (const group of groups) {
    const bytes = groupBytes(group);
    if (bytes > room || shards.length === 0) {
      shards.push([]);
      room = largest;
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

/** Writes the shards into a folder, those that the journal does not know yet, and the index if there are several. */
export async function writeShards(
  folder: string,
  shards: ReadonlyMap<string, readonly TensorGroup[]>,
  journal: Journal,
  /** The folder's path in that of the journal, with a slash at its end; empty if it is the same. */
  prefix: string,
  options: WriteOptions = {},
): Promise<void> {
  for (const [name, groups] of shards) {
    if (await journal.has(prefix + name)) continue;
    await journal.record(prefix + name, await streamSafetensors(join(folder, name), groups, options));
  }
  if (shards.size === 1) return;
  const homes = [...shards].flatMap(([file, groups]) =>
    groups.flatMap(({ tensors }) => tensors.map(({ name }) => [name, file] as const)),
  );
  const total = [...shards.values()].flat().reduce((sum, group) => sum + groupBytes(group), 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(homes) };
  await writeJsonFile(join(folder, "model.safetensors.index.json"), index);
}
