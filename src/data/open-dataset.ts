/** Opens a data set in any of the layouts that public ones come in, told by what lies at its path. */
import { readdir, stat } from "node:fs/promises";
import type { Dataset } from "./dataset.ts";
import { ccSbuAlign } from "./layouts/cc-sbu-align.ts";
import { coco } from "./layouts/coco.ts";
import { flickr8k } from "./layouts/flickr8k.ts";
import type { Layout, LayoutOptions, Place } from "./layouts/layout.ts";
import { csv, jsonl } from "./layouts/table.ts";
import { webShards } from "./layouts/web-shards.ts";

const layouts = { web_shards: webShards, cc_sbu_align: ccSbuAlign, flickr8k, coco, csv, jsonl } satisfies Record<
  string,
  Layout
>;

export type LayoutName = keyof typeof layouts;

export const layoutNames = Object.keys(layouts) as LayoutName[];

export interface OpenOptions extends LayoutOptions {
  /** Left out, the layout is recognised. */
  readonly layout?: LayoutName;
}

/**
 * Opens the data set at `path`: a file, a folder, or a range of shards such as `shards/{00000..01255}.tar`.
 * Nothing but names is read yet; `Part.read` lists the pairs.
 *
 * @throws Error naming the path if it is no data set, or an option has no meaning in its layout
 */
export async function openDataset(path: string, { layout, ...options }: OpenOptions = {}): Promise<Dataset> {
  const place = await look(path);
  const name = layout ?? recognise(place);
  const chosen: Layout = layouts[name];
  for (const option of ["filter", "images"] as const) {
    if (options[option] !== undefined && !chosen.options.includes(option)) {
      throw new Error(`${path}: the layout ${name} has no option "${option}"`);
    }
  }
  return { layout: name, ...(await chosen.open(place, options)) };
}

async function look(path: string): Promise<Place> {
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isDirectory()) return { path, kind: "folder", names: (await readdir(path)).sort() };
  if (!entry && !path.includes("{")) throw new Error(`${path} is not there; expected ${anyLayout()}`);
  return { path, kind: entry ? "file" : "range", names: [] };
}

function recognise(place: Place): LayoutName {
  const [name, second] = layoutNames.filter((candidate) => layouts[candidate].recognises(place));
  if (!name) throw new Error(`${place.path} is in no known layout; expected ${anyLayout()}`);
  if (second) throw new Error(`${place.path} may be read as ${name} and as ${second}; name the layout`);
  return name;
}

function anyLayout(): string {
  return `one of:\n${layoutNames.map((name) => `  ${name}: ${layouts[name].looksFor}`).join("\n")}`;
}
