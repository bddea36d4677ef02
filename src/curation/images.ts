/** The images of a project: choosing them from a dataset, adding them, reading their bytes, and converting them to JPEG. */
import { resolve } from "node:path";
import sharp from "sharp";
import type { Dataset, ImageTextPair, InvalidSample } from "../data/dataset.ts";
import { sha256Hex } from "../files/digest.ts";
import { readBytes } from "../files/file.ts";
import { readImage } from "../images/decode.ts";
import { Random } from "../tensor/random.ts";
import type { NewImage, ProjectImage } from "./entry.ts";
import type { CurationStore } from "./store.ts";

/** The file of an image is missing, cannot be read, or has changed. */
export class ImageLostError extends Error {
  override name = "ImageLostError";
}

/**
 * Reads the bytes of a project's image and checks their SHA-256.
 *
 * @throws ImageLostError
 */
export async function imageBytes({ source, sha256 }: ProjectImage): Promise<Uint8Array> {
  const bytes = await readBytes(source).catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "does not exist any more" : `cannot be read: ${cause.message}`;
    throw new ImageLostError(`${source.path} ${what}`, { cause });
  });
  if (sha256Hex(bytes) === sha256) return bytes;
  throw new ImageLostError(`${source.path} has changed since it was added to the project (its SHA-256 differs)`);
}

export interface AddReport {
  readonly added: number;
  /** Images that the project already has. */
  readonly known: number;
  /** Images with the same bytes as another one of the given images; they are added once. */
  readonly duplicates: number;
  /** Images whose bytes cannot be read; they are not added. */
  readonly unreadable: readonly InvalidSample[];
}

export interface AddOptions {
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Adds images in one transaction: if the call is interrupted, none is added. */
export async function addImages(
  store: CurationStore,
  pairs: readonly ImageTextPair[],
  { onProgress, signal }: AddOptions = {},
): Promise<AddReport> {
  const images = new Map<string, NewImage>();
  const unreadable: InvalidSample[] = [];
  for (const [i, { name, image }] of pairs.entries()) {
    signal?.throwIfAborted();
    try {
      const sha256 = sha256Hex(await readBytes(image));
      // Absolute, so that the project works from any directory.
      const source = { ...image, path: resolve(image.path) };
      if (!images.has(sha256)) images.set(sha256, { name, source, sha256 });
    } catch (error) {
      unreadable.push({ name, reason: (error as Error).message });
    }
    onProgress?.(i + 1, pairs.length);
  }
  const added = store.addImages([...images.values()]);
  return {
    added,
    known: images.size - added,
    duplicates: pairs.length - unreadable.length - images.size,
    unreadable,
  };
}

export interface ChoiceOptions {
  /** Number of images; smaller datasets are used whole. */
  readonly count: number;
  readonly seed: number;
  /** Called for unusable samples of the dataset and for parts that cannot be read. */
  readonly onProblem?: (problem: InvalidSample) => void;
  /** Called with the number of listed parts of the dataset. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Shuffles the images of a dataset and returns the first `count`. The order depends only on the seed and the dataset, so a larger count
 * extends the choice of a smaller one. Memory use is proportional to `count` and the largest part, not to the dataset.
 *
 * @throws Error if the dataset lists no images
 */
export async function chooseImages(
  { parts }: Dataset,
  { count, seed, onProblem, onProgress, signal }: ChoiceOptions,
): Promise<ImageTextPair[]> {
  const random = new Random(seed);
  let failure: Error | undefined;
  let chosen: { readonly rank: number; readonly pair: ImageTextPair }[] = [];
  for (const [i, part] of parts.entries()) {
    signal?.throwIfAborted();
    try {
      const { pairs, invalid } = await part.read();
      for (const problem of invalid) onProblem?.(problem);
      // Every image draws a rank, whether it is chosen or not. The sort is stable: ties keep the order of the dataset.
      chosen = [...chosen, ...pairs.map((pair) => ({ rank: random.uniform(), pair }))]
        .sort((a, b) => a.rank - b.rank)
        .slice(0, count);
    } catch (error) {
      failure ??= error as Error;
      onProblem?.({ name: part.path, reason: (error as Error).message });
    }
    onProgress?.(i + 1, parts.length);
  }
  if (chosen.length === 0) throw failure ?? new Error("The dataset lists no images");
  return chosen.map(({ pair }) => pair);
}

/**
 * Converts an image to a JPEG that every program shows in the same way. Upright JPEGs are returned unchanged. Other formats, and JPEGs
 * with an EXIF rotation (which the Python original ignores), are encoded from the pixels that the model saw.
 *
 * @param name name of the image in messages
 * @throws ImageError if the image cannot be read
 */
export async function toJpeg(bytes: Uint8Array, name: string): Promise<{ bytes: Uint8Array; isCopy: boolean }> {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const header = await sharp(bytes, { limitInputPixels: false })
      .metadata()
      .catch(() => undefined);
    if (header?.format === "jpeg" && (header.orientation ?? 1) === 1) return { bytes, isCopy: true };
  }
  const { width, height, data } = await readImage(bytes, { name });
  // An image without a profile is sRGB.
  const jpeg = sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality: 95, chromaSubsampling: "4:4:4" });
  return { bytes: await jpeg.toBuffer(), isCopy: false };
}
