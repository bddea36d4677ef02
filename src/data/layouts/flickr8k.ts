/** Flickr8k: a folder with `Images/` and `captions.txt`, a CSV file with the columns `image` and `caption`. */
import { join } from "node:path";
import type { PartContents } from "../dataset.ts";
import { type Layout, listedBy } from "./layout.ts";
import { readCsv } from "./table.ts";

export const flickr8k: Layout = {
  looksFor: "a folder with Images/ and captions.txt",
  options: [],
  recognises: ({ names }) => names.includes("captions.txt"),
  open: async ({ path }) => listedBy(join(path, "captions.txt"), () => readFlickr8k(path)),
};

/** Pairs of the folder. @throws Error naming `captions.txt`, and the record where one is wrong */
function readFlickr8k(folder: string): Promise<PartContents> {
  return readCsv(join(folder, "captions.txt"), join(folder, "Images"));
}
