/**
 * Web shards: tar files in which an image and its captions share a key, as read by webdataset and written by img2dataset
 * (`000000012.jpg`, `000000012.json`, `000000012.txt`).
 */
import { readdir } from "node:fs/promises";
import { basename, dirname, join, posix, sep } from "node:path";
import { expand } from "brace-expansion";
import { inFile, quote } from "../../files/errors.ts";
import { RandomAccessFile } from "../../files/file.ts";
import { parseJson } from "../../files/json.ts";
import type { ImageTextPair, InvalidSample, PartContents } from "../dataset.ts";
import { type DatasetFormat, type DatasetLocation, jsonFields, usableTexts } from "./format.ts";
import { applyFilter, type ParquetFilter } from "./parquet.ts";
import { ReadAhead, type TarMember, tarMembers } from "./tar.ts";

/** LAION-5B has about 230,000. */
const maxShards = 1_000_000;
const compressed = /\.(tar\.(gz|bz2|xz|zst)|tgz)$/i;

/** Includes compressed tars, so that they are reported and not ignored. */
function isTar(name: string): boolean {
  return /\.tar$/i.test(name) || compressed.test(name);
}

/** img2dataset's table of a shard's samples: `00000.parquet` next to `00000.tar`. */
function parquetPath(shard: string): string {
  return shard.replace(/\.tar$/i, ".parquet");
}

/** Resolves a tar file, a folder of tars, or a range such as `{00000..01255}.tar`. @throws Error naming missing or compressed tars */
async function shardPaths({ path, kind, names }: DatasetLocation): Promise<string[]> {
  const paths = kind === "range" ? await expandRange(path) : kind === "file" ? [path] : listTars(path, names);
  const packed = paths.find((shard) => compressed.test(shard));
  if (packed === undefined) return paths;
  throw new Error(`${packed} is compressed, which does not allow random access to images; decompress it to a .tar`);
}

function listTars(folder: string, names: readonly string[]): string[] {
  const tars = names.filter(isTar).map((name) => join(folder, name));
  if (tars.length === 0) throw new Error(`${folder} contains no tar files`);
  return tars;
}

async function expandRange(range: string): Promise<string[]> {
  // A backslash would escape the brace after it.
  const paths = expand(range.split(sep).join("/"), { max: maxShards + 1, maxLength: 2 ** 30 });
  if (paths.length > maxShards) throw new Error(`${range} expands to more than ${maxShards} files`);
  await requireFiles(paths, `expanded from ${range}`);
  return paths;
}

/** Reads each folder once instead of each file's entry. @throws Error naming the first missing files */
async function requireFiles(paths: readonly string[], why: string): Promise<void> {
  const folders = new Map<string, Set<string>>();
  for (const folder of new Set(paths.map((path) => dirname(path)))) {
    folders.set(folder, new Set(await readdir(folder).catch(() => [])));
  }
  const missing = paths.filter((path) => !folders.get(dirname(path))?.has(basename(path)));
  if (missing.length === 0) return;
  const shown = missing.slice(0, 3).join(", ");
  throw new Error(
    `${missing.length} of ${paths.length} files do not exist: ${shown}${missing.length > 3 ? ", ..." : ""} (${why})`,
  );
}

const imageExtensions = ["jpg", "jpeg", "png", "webp"];
/** Limit for captions and crawler metadata. */
const maxTextBytes = 2 ** 20;

export const webShards: DatasetFormat = {
  summary: "a tar file, a folder with tar files, or a range of them such as shards/{00000..01255}.tar",
  options: ["filter"],
  matches: ({ path, kind, names }) => (kind === "folder" ? names : [path]).some(isTar),
  open: async (location, { filter }) => {
    const paths = await shardPaths(location);
    if (filter) {
      const parquets = paths.map(parquetPath);
      await requireFiles(parquets, "the filter needs the parquet file next to each shard");
      // Report a filter that does not fit now, not in the middle of a run.
      if (parquets[0]) await applyFilter(parquets[0], filter);
    }
    return { parts: paths.map((path) => ({ path, read: () => readShard(path, filter) })) };
  },
};

/** The members of a shard that share a key. */
interface Sample {
  readonly images: TarMember[];
  /** Captions from the .json. */
  readonly captions: string[];
  /** The caption from the .txt, used if the .json has none. */
  readonly plain: string[];
  readonly flaws: string[];
}

function readShard(path: string, filter: ParquetFilter | undefined): Promise<PartContents> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    try {
      const { samples, invalid, damage } = await scan(path, new ReadAhead(file));
      const selected = filter && (await applyFilter(parquetPath(path), filter));
      const pairs: ImageTextPair[] = [];
      for (const [key, sample] of samples) {
        const name = `${path}/${key}`;
        const isSelected = selected ? selected.get(key) : true;
        if (isSelected === undefined) invalid.push({ name, reason: `has no row in ${parquetPath(path)}` });
        if (!isSelected) continue;
        const pair = createPair(name, path, sample);
        if (typeof pair === "string") invalid.push({ name, reason: pair });
        else pairs.push(pair);
      }
      if (damage) {
        if (samples.size === 0 || (pairs.length === 0 && !filter)) throw new Error(damage);
        invalid.push({ name: path, reason: `${damage}; the rest of the tar is skipped` });
      }
      return { pairs, invalid };
    } finally {
      await file.close();
    }
  });
}

/** Groups the members of a tar by key, up to the first error. */
async function scan(path: string, file: ReadAhead) {
  const samples = new Map<string, Sample>();
  const invalid: InvalidSample[] = [];
  let damage: string | undefined;
  try {
    for await (const member of tarMembers(file)) {
      const name = posix.normalize(member.name);
      if (name.startsWith("/") || name.startsWith("../")) {
        invalid.push({ name: `${path}/${name}`, reason: "has a path outside of the tar" });
        continue;
      }
      const { key, extension } = splitName(name);
      const isImage = imageExtensions.includes(extension);
      if (!isImage && extension !== "json" && extension !== "txt") continue;
      const sample = samples.get(key) ?? { images: [], captions: [], plain: [], flaws: [] };
      samples.set(key, sample);
      if (isImage) sample.images.push(member);
      else await readText(file, member, extension, sample);
    }
  } catch (error) {
    damage = (error as Error).message;
  }
  return { samples, invalid, damage };
}

/** Splits at the first dot of the base name, like webdataset. Key and extension are empty if either is missing. */
function splitName(name: string): { key: string; extension: string } {
  const base = name.lastIndexOf("/") + 1;
  const dot = name.indexOf(".", base);
  return dot > base
    ? { key: name.slice(0, dot), extension: name.slice(dot + 1).toLowerCase() }
    : { key: "", extension: "" };
}

async function readText(
  file: ReadAhead,
  { offset, length }: TarMember,
  extension: string,
  sample: Sample,
): Promise<void> {
  if (length > maxTextBytes) {
    sample.flaws.push(`its .${extension} has ${length} bytes, the limit is ${maxTextBytes}`);
    return;
  }
  const bytes = await file.read(offset, length);
  if (extension === "txt") {
    sample.plain.push(...usableTexts([new TextDecoder().decode(bytes).trim()]));
    return;
  }
  try {
    const { caption, captions } = jsonFields(parseJson(bytes));
    sample.captions.push(...usableTexts([caption, ...(Array.isArray(captions) ? captions : [])]));
  } catch (error) {
    // Python writes NaN, which is not JSON; the .txt may still have the caption.
    sample.flaws.push(`its .json ${(error as Error).message}`);
  }
}

/** The pair, or the reason why the sample is invalid. */
function createPair(name: string, path: string, { images, captions, plain, flaws }: Sample): ImageTextPair | string {
  const [image] = images;
  const texts = captions.length > 0 ? captions : plain;
  if (!image) return `has no image (${imageExtensions.join(", ")})`;
  if (images.length > 1) return `has ${images.length} images: ${images.map((p) => quote(p.name)).join(", ")}`;
  if (texts.length === 0) return ["has no caption", ...flaws].join("; ");
  const { offset, length } = image;
  return { name, image: { path, range: { offset, length } }, texts };
}
