/** Adds a data set's images to a project. */
import { resolve } from "node:path";
import sharp from "sharp";
import type { Dataset, ImageTextPair, InvalidSample } from "../data/dataset.ts";
import { sha256Hex } from "../files/digest.ts";
import { readBytes } from "../files/file.ts";
import { readImage } from "../images/decode.ts";
import { Random } from "../tensor/random.ts";
import type { NewImage, ProjectImage } from "./entry.ts";
import type { CurationStore } from "./store.ts";

// An image's bytes, as long as they are those that were added to the project.

/** The image's file is gone, cannot be read, or holds something else now. */
export class ImageLostError extends Error {
  override name = "ImageLostError";
}

/** @throws ImageLostError */
export async function imageBytes({ source, sha256 }: ProjectImage): Promise<Uint8Array> {
  const bytes = await readBytes(source).catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "is not there any more" : `cannot be read: ${cause.message}`;
    throw new ImageLostError(`${source.path} ${what}`, { cause });
  });
  if (sha256Hex(bytes) === sha256) return bytes;
  throw new ImageLostError(`${source.path} has changed since it was added to the project (its SHA-256 is another one)`);
}

export interface AddReport {
  readonly added: number;
  /** Were in the project before. */
  readonly known: number;
  /** Have the bytes of another one of those given; such an image is taken once. */
  readonly duplicates: number;
  /** Their bytes cannot be read, so that they are not in the project. */
  readonly unreadable: readonly InvalidSample[];
}

export interface AddOptions {
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Adds the images all at once: when this is stopped before its end, none is in the project. */
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
      // A project is worked on from any folder.
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

// A random choice of a data set's images.

export interface ChoiceOptions {
  /** All images are taken of a data set that has no more. */
  readonly count: number;
  readonly seed: number;
  /** Told of what the data set lists but cannot be used, and of parts that cannot be read. */
  readonly onProblem?: (problem: InvalidSample) => void;
  /** Parts of the data set that are listed. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * The first `count` images of the data set in a random order, which depends only on the seed and the data set: of a larger count
 * the first ones are those of a smaller one. No more than some multiple of `count` is kept in memory.
 *
 * @throws Error if the data set lists no image at all
 */
export async function chooseImages(
  { parts }: Dataset,
  { count, seed, onProblem, onProgress, signal }: ChoiceOptions,
): Promise<ImageTextPair[]> {
  const random = new Random(seed);
  let failed: Error | undefined;
  let chosen: { readonly place: number; readonly pair: ImageTextPair }[] = [];
  for (const [i, part] of parts.entries()) {
    signal?.throwIfAborted();
    try {
      const { pairs, invalid } = await part.read();
      for (const problem of invalid) onProblem?.(problem);
      // Every image draws its place in the order, chosen or not; of equal places the one that is listed first is first.
      chosen = [...chosen, ...pairs.map((pair) => ({ place: random.uniform(), pair }))]
        .sort((a, b) => a.place - b.place)
        .slice(0, count);
    } catch (error) {
      failed ??= error as Error;
      onProblem?.({ name: part.path, reason: (error as Error).message });
    }
    onProgress?.(i + 1, parts.length);
  }
  if (chosen.length === 0) throw failed ?? new Error("The data set lists no images");
  return chosen.map(({ pair }) => pair);
}

// Any image as a JPEG that every program reads alike.

/**
 * An upright JPEG stays as it is, byte by byte. What is another format, or is turned by its EXIF orientation (which the original
 * project does not look at), becomes a new one of the pixels that the model saw.
 *
 * @param name what messages call the image
 * @throws ImageError if it cannot be read
 */
export async function toJpeg(bytes: Uint8Array, name: string): Promise<{ bytes: Uint8Array; isCopy: boolean }> {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const header = await sharp(bytes, { limitInputPixels: false })
      .metadata()
      .catch(() => undefined);
    if (header?.format === "jpeg" && (header.orientation ?? 1) === 1) return { bytes, isCopy: true };
  }
  const { width, height, data } = await readImage(bytes, { name });
  // Without a profile it is sRGB.
  const jpeg = sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality: 95, chromaSubsampling: "4:4:4" });
  return { bytes: await jpeg.toBuffer(), isCopy: false };
}
