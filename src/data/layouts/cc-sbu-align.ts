/**
 * The 3500 pictures of MiniGPT-4's second stage, as its authors publish them: a folder with `filter_cap.json`,
 * {"annotations": [{"image_id": "2", "caption": "..."}]}, and `image/2.jpg`.
 */
import { readdir } from "node:fs/promises";
import { join, parse } from "node:path";
import { z } from "zod";
import type { PartContents } from "../dataset.ts";
import { readJson } from "./json-file.ts";
import { type Layout, listedBy } from "./layout.ts";
import { Listing } from "./listing.ts";

const captionsFile = "filter_cap.json";
const endings = [".jpg", ".jpeg", ".png", ".webp"];

const schema = z.object({
  annotations: z.array(z.object({ image_id: z.union([z.string(), z.number()]), caption: z.string() })),
});

export const ccSbuAlign: Layout = {
  looksFor: `a folder with ${captionsFile} and image/`,
  options: [],
  recognises: ({ names }) => names.includes(captionsFile),
  open: async ({ path }) => listedBy(join(path, captionsFile), () => read(path)),
};

async function read(folder: string): Promise<PartContents> {
  const file = join(folder, captionsFile);
  const images = join(folder, "image");
  const { annotations } = await readJson(file, schema);
  const names = await readdir(images).catch((cause: Error) => {
    throw new Error(`${images} cannot be read: ${cause.message}`, { cause });
  });
  const pictures = names.filter((name) => endings.includes(parse(name).ext.toLowerCase())).sort();
  // The annotations leave the ending out.
  const nameOf = new Map(pictures.toReversed().map((name) => [parse(name).name, name]));
  const listing = new Listing({ file, root: folder, images });
  annotations.forEach(({ image_id: id, caption }, i) => {
    const name = nameOf.get(String(id));
    if (name === undefined) listing.refuse(`annotation ${i + 1}`, `${join(images, `${id}.jpg`)} is not there`);
    else listing.add(`annotation ${i + 1}`, name, [caption]);
  });
  return listing.contents();
}
