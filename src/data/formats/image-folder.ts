/** A folder of images without captions, including its subfolders. */
import { readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import type { ImageTextPair, InvalidSample, PartContents } from "../dataset.ts";
import { type DatasetFormat, singlePart } from "./format.ts";

export const imageExtensions = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".svg"];

export const images: DatasetFormat = {
  summary: `a folder with image files (${imageExtensions.join(", ")}), without captions`,
  options: [],
  matches: ({ kind }) => kind === "folder",
  open: async ({ path }) => singlePart(path, () => read(path)),
};

async function read(folder: string): Promise<PartContents> {
  const pairs: ImageTextPair[] = [];
  const invalid: InvalidSample[] = [];
  for await (const found of imageFiles(folder)) {
    if ("reason" in found) invalid.push(found);
    else pairs.push({ name: found.path, image: found, texts: [] });
  }
  if (pairs.length > 0) return { pairs, invalid };
  const [first] = invalid;
  throw new Error(
    `${folder} contains no images (${imageExtensions.join(", ")})${first ? `; ${first.name} ${first.reason}` : ""}`,
  );
}

/** Whether the folder or one of its subfolders contains an image. */
export async function containsImages(folder: string): Promise<boolean> {
  for await (const found of imageFiles(folder)) if ("path" in found) return true;
  return false;
}

/**
 * Images sorted by name, and folders that cannot be read. Follows links to images, but not to folders, which may form cycles. Skips
 * hidden files, such as thumbnails and metadata of other systems.
 */
export async function* imageFiles(folder: string): AsyncGenerator<{ readonly path: string } | InvalidSample> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: Error) => cause);
  if (entries instanceof Error) {
    yield { name: folder, reason: `cannot be read: ${entries.message}` };
    return;
  }
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith(".")) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* imageFiles(path);
    else if (
      (entry.isFile() || entry.isSymbolicLink()) &&
      imageExtensions.includes(extname(entry.name).toLowerCase())
    ) {
      yield { path };
    }
  }
}
