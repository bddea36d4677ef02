/**
 * Web shards: tar files of images and captions that share a key, as webdataset reads and img2dataset writes them
 * (`000000012.jpg`, `000000012.json`, `000000012.txt`).
 */
import { readdir } from "node:fs/promises";
import { basename, dirname, join, posix, sep } from "node:path";
import { expand } from "brace-expansion";
import { inFile, quote, RandomAccessFile } from "../../files/file.ts";
import { parseJson } from "../../files/json.ts";
import type { ImageTextPair, PartContents, Problem } from "../dataset.ts";
import { fieldsOf, type Layout, type Place, usableTexts } from "./format.ts";
import { type ParquetFilter, readVerdicts } from "./parquet.ts";
import { ReadAhead, type TarMember, tarMembers } from "./tar.ts";

// Which tar files a data set of web shards has: one, those of a folder, or a range such as `{00000..01255}.tar`.

/** LAION-5B has some 230 000. */
const mostShards = 1_000_000;
const compressed = /\.(tar\.(gz|bz2|xz|zst)|tgz)$/i;

/** Compressed ones count, so that they are refused and not passed over. */
function isTar(name: string): boolean {
  return /\.tar$/i.test(name) || compressed.test(name);
}

/** img2dataset's table of the samples of a shard: `00000.parquet` beside `00000.tar`. */
function sideFile(shard: string): string {
  return shard.replace(/\.tar$/i, ".parquet");
}

/** The tars of a file, a folder or a range. @throws Error naming those that are not there or compressed */
async function shardPaths({ path, kind, names }: Place): Promise<string[]> {
  const paths = kind === "range" ? await expandRange(path) : kind === "file" ? [path] : tarsOf(path, names);
  const packed = paths.find((shard) => compressed.test(shard));
  if (packed === undefined) return paths;
  throw new Error(`${packed} is compressed, so that images cannot be read from its middle; unpack it to a .tar`);
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
async function checkPresent(paths: readonly string[], why: string): Promise<void> {
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

const imageEndings = ["jpg", "jpeg", "png", "webp"];
/** Captions and what a crawler knows of an image; more is no caption. */
const largestText = 2 ** 20;

export const webShards: Layout = {
  looksFor: "a tar file, a folder with tar files, or a range of them such as shards/{00000..01255}.tar",
  options: ["filter"],
  recognises: ({ path, kind, names }) => (kind === "folder" ? names : [path]).some(isTar),
  open: async (place, { filter }) => {
    const paths = await shardPaths(place);
    if (filter) {
      const sideFiles = paths.map(sideFile);
      await checkPresent(sideFiles, "the filter needs the parquet file beside each shard");
      // A filter that does not fit is found now, not in the middle of a run.
      if (sideFiles[0]) await readVerdicts(sideFiles[0], filter);
    }
    return { parts: paths.map((path) => ({ path, read: () => readShard(path, filter) })) };
  },
};

/** What a shard has of one key. */
interface Sample {
  readonly images: TarMember[];
  /** Of the json, and of the txt. */
  readonly captions: string[];
  readonly plain: string[];
  readonly flaws: string[];
}

function readShard(path: string, filter: ParquetFilter | undefined): Promise<PartContents> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    try {
      const { samples, problems, damage } = await scan(path, new ReadAhead(file));
      const verdicts = filter && (await readVerdicts(sideFile(path), filter));
      const pairs: ImageTextPair[] = [];
      for (const [key, sample] of samples) {
        const name = `${path}/${key}`;
        const passes = verdicts ? verdicts.get(key) : true;
        if (passes === undefined) problems.push({ name, reason: `has no row in ${sideFile(path)}` });
        if (!passes) continue;
        const pair = pairOf(name, path, sample);
        if (typeof pair === "string") problems.push({ name, reason: pair });
        else pairs.push(pair);
      }
      if (damage) {
        if (samples.size === 0 || (pairs.length === 0 && !filter)) throw new Error(damage);
        problems.push({ name: path, reason: `${damage}; what lies from there on is left out` });
      }
      return { pairs, problems };
    } finally {
      await file.close();
    }
  });
}

/** What a tar holds of each key, up to the damage if there is any. */
async function scan(path: string, file: ReadAhead) {
  const samples = new Map<string, Sample>();
  const problems: Problem[] = [];
  let damage: string | undefined;
  try {
    for await (const member of tarMembers(file)) {
      const name = posix.normalize(member.name);
      if (name.startsWith("/") || name.startsWith("../")) {
        problems.push({ name: `${path}/${name}`, reason: "is named outside of the tar" });
        continue;
      }
      const { key, ending } = splitName(name);
      const isImage = imageEndings.includes(ending);
      if (!isImage && ending !== "json" && ending !== "txt") continue;
      const sample = samples.get(key) ?? { images: [], captions: [], plain: [], flaws: [] };
      samples.set(key, sample);
      if (isImage) sample.images.push(member);
      else await readText(file, member, ending, sample);
    }
  } catch (error) {
    damage = (error as Error).message;
  }
  return { samples, problems, damage };
}

/** A key ends at the first dot of the base name, as webdataset has it; a name without key or ending has neither. */
function splitName(name: string): { key: string; ending: string } {
  const base = name.lastIndexOf("/") + 1;
  const dot = name.indexOf(".", base);
  return dot > base ? { key: name.slice(0, dot), ending: name.slice(dot + 1).toLowerCase() } : { key: "", ending: "" };
}

async function readText(file: ReadAhead, { offset, length }: TarMember, ending: string, sample: Sample): Promise<void> {
  if (length > largestText) {
    sample.flaws.push(`its .${ending} has ${length} bytes, the limit is ${largestText}`);
    return;
  }
  const bytes = await file.read(offset, length);
  if (ending === "txt") {
    sample.plain.push(...usableTexts([new TextDecoder().decode(bytes).trim()]));
    return;
  }
  try {
    const { caption, captions } = fieldsOf(parseJson(bytes));
    sample.captions.push(...usableTexts([caption, ...(Array.isArray(captions) ? captions : [])]));
  } catch (error) {
    // Python writes NaN, which is no JSON; the caption may still stand in the txt.
    sample.flaws.push(`its .json ${(error as Error).message}`);
  }
}

/** The pair, or why there is none. */
function pairOf(name: string, path: string, { images, captions, plain, flaws }: Sample): ImageTextPair | string {
  const [image] = images;
  const texts = captions.length > 0 ? captions : plain;
  if (!image) return `has no image (${imageEndings.join(", ")})`;
  if (images.length > 1) return `has ${images.length} images: ${images.map((p) => quote(p.name)).join(", ")}`;
  if (texts.length === 0) return ["has no caption", ...flaws].join("; ");
  const { offset, length } = image;
  return { name, image: { path, at: { offset, length } }, texts };
}
