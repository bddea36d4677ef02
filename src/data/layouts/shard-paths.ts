/** Which tar files a data set of web shards has: one, those of a folder, or a range such as `{00000..01255}.tar`. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { expand } from "brace-expansion";
import type { Place } from "./layout.ts";

/** LAION-5B has some 230 000. */
const mostShards = 1_000_000;
const compressed = /\.(tar\.(gz|bz2|xz|zst)|tgz)$/i;

/** Compressed ones count, so that they are refused and not passed over. */
export function isTar(name: string): boolean {
  return /\.tar$/i.test(name) || compressed.test(name);
}

/** img2dataset's table of the samples of a shard: `00000.parquet` beside `00000.tar`. */
export function sideFile(shard: string): string {
  return shard.replace(/\.tar$/i, ".parquet");
}

/** The tars of a file, a folder or a range. @throws Error naming those that are not there or compressed */
export async function shardPaths({ path, kind, names }: Place): Promise<string[]> {
  const paths = kind === "range" ? await expandRange(path) : kind === "file" ? [path] : tarsOf(path, names);
  const packed = paths.find((shard) => compressed.test(shard));
  if (packed === undefined) return paths;
  throw new Error(`${packed} is compressed, so that pictures cannot be read from its middle; unpack it to a .tar`);
}

function tarsOf(folder: string, names: readonly string[]): string[] {
  const tars = names.filter(isTar).map((name) => join(folder, name));
  if (tars.length === 0) throw new Error(`${folder} holds no tar files`);
  return tars;
}

async function expandRange(range: string): Promise<string[]> {
  // A backslash would protect the brace behind it.
  const paths = expand(range.split(sep).join("/"), { max: mostShards + 1, maxLength: 2 ** 30 });
  if (paths.length > mostShards) throw new Error(`${range} stands for more than ${mostShards} files`);
  await checkPresent(paths, `${range} stands for them`);
  return paths;
}

/** Reads each folder once, not each file's entry. @throws Error naming the first few that are not there */
export async function checkPresent(paths: readonly string[], why: string): Promise<void> {
  const folders = new Map<string, Set<string>>();
  for (const folder of new Set(paths.map((path) => dirname(path)))) {
    folders.set(folder, new Set(await readdir(folder).catch(() => [])));
  }
  const missing = paths.filter((path) => !folders.get(dirname(path))?.has(basename(path)));
  if (missing.length === 0) return;
  const shown = missing.slice(0, 3).join(", ");
  throw new Error(
    `${missing.length} of ${paths.length} files are not there: ${shown}${missing.length > 3 ? ", ..." : ""} (${why})`,
  );
}
