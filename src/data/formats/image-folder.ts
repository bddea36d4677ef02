/** A folder of images of which nothing is said, also in folders below it. */
import { readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import type { ImageTextPair, PartContents, Problem } from "../dataset.ts";
import { type Layout, listedBy } from "./format.ts";

export const imageEndings = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".svg"];

export const images: Layout = {
  looksFor: `a folder with image files (${imageEndings.join(", ")}), which has no texts`,
  options: [],
  recognises: ({ kind }) => kind === "folder",
  open: async ({ path }) => listedBy(path, () => read(path)),
};

async function read(folder: string): Promise<PartContents> {
  const pairs: ImageTextPair[] = [];
  const problems: Problem[] = [];
  for await (const found of imageFiles(folder)) {
    if ("reason" in found) problems.push(found);
    else pairs.push({ name: found.path, image: found, texts: [] });
  }
  if (pairs.length > 0) return { pairs, problems };
  const [first] = problems;
  throw new Error(
    `${folder} holds no images (${imageEndings.join(", ")})${first ? `; ${first.name} ${first.reason}` : ""}`,
  );
}

/** Whether there is an image in the folder, or in one below it. */
export async function holdsImages(folder: string): Promise<boolean> {
  for await (const found of imageFiles(folder)) if ("path" in found) return true;
  return false;
}

/**
 * The images in the order of their names, and folders that cannot be read. Links to images are followed, links to folders are
 * not: they may lead in circles. What is hidden by its name is left out, as thumbnails and the side files of other systems are.
 */
export async function* imageFiles(folder: string): AsyncGenerator<{ readonly path: string } | Problem> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: Error) => cause);
  if (entries instanceof Error) {
    yield { name: folder, reason: `cannot be read: ${entries.message}` };
    return;
  }
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith(".")) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* imageFiles(path);
    else if ((entry.isFile() || entry.isSymbolicLink()) && imageEndings.includes(extname(entry.name).toLowerCase())) {
      yield { path };
    }
  }
}
