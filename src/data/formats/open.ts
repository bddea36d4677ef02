/** Opens a data set in any of the layouts that public ones come in, told by what lies at its path. */
import { readdir, stat } from "node:fs/promises";
import type { Dataset } from "../dataset.ts";
import { ccSbuAlign, coco } from "./caption-files.ts";
import type { Layout, LayoutOptions, Place } from "./format.ts";
import { holdsImages, images } from "./image-folder.ts";
import { csv, flickr8k, jsonl } from "./table.ts";
import { webShards } from "./web-shards.ts";

/** Those in which images come with texts. */
const captioned = { web_shards: webShards, cc_sbu_align: ccSbuAlign, flickr8k, coco, csv, jsonl } satisfies Record<
  string,
  Layout
>;
const layouts = { ...captioned, images };

export type LayoutName = keyof typeof layouts;

const captionedNames = Object.keys(captioned) as (keyof typeof captioned)[];
export const layoutNames = Object.keys(layouts) as LayoutName[];

export interface OpenOptions extends LayoutOptions {
  /** Left out, the layout is recognised. */
  readonly layout?: LayoutName;
}

/**
 * Opens the data set at `path`: a file, a folder, or a range of shards such as `shards/{00000..01255}.tar`.
 * Nothing but names is read yet; `Part.read` lists the pairs. Of a folder of images the texts are empty.
 *
 * @throws Error naming the path if it is no data set, or an option has no meaning in its layout
 */
export async function openDataset(path: string, { layout, ...options }: OpenOptions = {}): Promise<Dataset> {
  const place = await look(path);
  const name = layout ?? (await recognise(place));
  const chosen: Layout = layouts[name];
  for (const option of ["filter", "images"] as const) {
    if (options[option] !== undefined && !chosen.options.includes(option)) {
      throw new Error(`${path}: the layout ${name} has no option "${option}"`);
    }
  }
  return { layout: name, ...(await chosen.open(place, options)) };
}

/** Opens a data set to learn from its texts, or to measure with them. @throws Error as `openDataset`, and if it has no texts */
export async function openCaptioned(path: string, options: OpenOptions = {}): Promise<Dataset> {
  const dataset = await openDataset(path, options);
  if (dataset.layout !== "images") return dataset;
  throw new Error(
    `${path} is a folder of images without texts; where the texts lie, expected ${oneOf(captionedNames)}\n` +
      "`minigpt4 curate` has a model describe images, and makes a data set of them",
  );
}

async function look(path: string): Promise<Place> {
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isDirectory()) return { path, kind: "folder", names: (await readdir(path)).sort() };
  if (!entry && !path.includes("{")) throw new Error(`${path} is not there; expected ${oneOf(layoutNames)}`);
  return { path, kind: entry ? "file" : "range", names: [] };
}

/** A folder of images is what is in no other layout. */
async function recognise(place: Place): Promise<LayoutName> {
  const [name, second] = captionedNames.filter((candidate) => layouts[candidate].recognises(place));
  if (second) throw new Error(`${place.path} may be read as ${name} and as ${second}; name the layout`);
  if (name) return name;
  if (images.recognises(place) && (await holdsImages(place.path))) return "images";
  throw new Error(`${place.path} is in no known layout; expected ${oneOf(layoutNames)}`);
}

function oneOf(names: readonly LayoutName[]): string {
  return `one of:\n${names.map((name) => `  ${name}: ${layouts[name].looksFor}`).join("\n")}`;
}
