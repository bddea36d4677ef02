/** Opens a dataset in any supported format, which is detected from what its path contains. */
import { readdir, stat } from "node:fs/promises";
import type { Dataset } from "../dataset.ts";
import { ccSbuAlign, coco } from "./caption-files.ts";
import type { DatasetFormat, DatasetLocation, FormatOptions } from "./format.ts";
import { containsImages, images } from "./image-folder.ts";
import { csv, flickr8k, jsonl } from "./table.ts";
import { webShards } from "./web-shards.ts";

/** Formats in which images have captions. */
const captioned = { web_shards: webShards, cc_sbu_align: ccSbuAlign, flickr8k, coco, csv, jsonl } satisfies Record<
  string,
  DatasetFormat
>;
const formats = { ...captioned, images };

export type FormatName = keyof typeof formats;

const captionedNames = Object.keys(captioned) as (keyof typeof captioned)[];
export const formatNames = Object.keys(formats) as FormatName[];

export interface OpenOptions extends FormatOptions {
  /** @default detected from the path */
  readonly format?: FormatName;
}

/**
 * Opens the dataset at `path`: a file, a folder, or a range of shards such as `shards/{00000..01255}.tar`.
 * Reads only file names; `Part.read` lists the pairs. In a folder of images, pairs have no texts.
 *
 * @throws Error naming the path if it is not a dataset, or if its format does not support an option
 */
export async function openDataset(path: string, { format, ...options }: OpenOptions = {}): Promise<Dataset> {
  const location = await inspectPath(path);
  const name = format ?? (await detectFormat(location));
  const chosen: DatasetFormat = formats[name];
  for (const option of ["filter", "images"] as const) {
    if (options[option] !== undefined && !chosen.options.includes(option)) {
      throw new Error(`${path}: the format ${name} does not support the option "${option}"`);
    }
  }
  return { format: name, ...(await chosen.open(location, options)) };
}

/** Opens a dataset with captions, for training or evaluation. @throws Error as `openDataset`, and if there are no captions */
export async function openCaptioned(path: string, options: OpenOptions = {}): Promise<Dataset> {
  const dataset = await openDataset(path, options);
  if (dataset.format !== "images") return dataset;
  throw new Error(
    `${path} is a folder of images without captions; expected ${listFormats(captionedNames)}\n` +
      "To have a model describe the images first, use `minigpt4 curate`",
  );
}

async function inspectPath(path: string): Promise<DatasetLocation> {
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isDirectory()) return { path, kind: "folder", names: (await readdir(path)).sort() };
  if (!entry && !path.includes("{")) throw new Error(`${path} does not exist; expected ${listFormats(formatNames)}`);
  return { path, kind: entry ? "file" : "range", names: [] };
}

/** A folder is a plain image folder only if no other format matches. */
async function detectFormat(location: DatasetLocation): Promise<FormatName> {
  const { path } = location;
  const [name, second] = captionedNames.filter((candidate) => formats[candidate].matches(location));
  if (second) throw new Error(`${path} matches the formats ${name} and ${second}; set the format explicitly`);
  if (name) return name;
  if (images.matches(location) && (await containsImages(path))) return "images";
  throw new Error(`${path} is not in a supported format; expected ${listFormats(formatNames)}`);
}

function listFormats(names: readonly FormatName[]): string {
  return `one of:\n${names.map((name) => `  ${name}: ${formats[name].summary}`).join("\n")}`;
}
