/** Picture files become vectors, some at a time; what fails is told of each by itself. */
import { readFile } from "node:fs/promises";
import { type Decoder, defaultWorkers, startDecoder } from "../data/decoding/decoder.ts";
import { pictureId } from "../data/features/feature-cache.ts";
import { Prefetcher } from "../data/prefetch.ts";
import { asItIs } from "../data/views.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import { sizeOf } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import { type Finder, picturesAtOnce } from "./finder.ts";
import type { FolderPicture } from "./folder-pictures.ts";

export type EmbeddedFile = { readonly picture: FolderPicture } & (
  | {
      readonly id: string;
      /** Its vectors as float16, or why it has none. */
      readonly content: Uint16Array | string;
    }
  /** Why the file cannot be read now. */
  | { readonly unreadable: string }
);

/** For fewer pictures, threads that decode are not worth their start. */
const fewPictures = 16;

/**
 * @param known what is known of a content already
 * @throws the signal's reason when it is aborted
 */
export async function* embedFiles(
  pictures: readonly FolderPicture[],
  finder: Finder,
  known: (id: string) => Uint16Array | string | undefined,
  signal?: AbortSignal,
): AsyncGenerator<EmbeddedFile> {
  if (pictures.length === 0) return;
  const decoder = startDecoder(pictures.length < fewPictures ? 0 : defaultWorkers());
  let next = 0;
  const batches = new Prefetcher(
    async () => {
      next += picturesAtOnce;
      return pictures.slice(next - picturesAtOnce, next);
    },
    (batch) => Promise.all(batch.map((picture) => load(picture, decoder, finder.spec, known))),
    2,
  );
  try {
    for (let start = 0; start < pictures.length; start += picturesAtOnce) {
      signal?.throwIfAborted();
      yield* await embed(await batches.next(), finder);
    }
  } finally {
    await batches.settle();
    await decoder.close();
  }
}

type LoadedFile =
  | EmbeddedFile
  | { readonly picture: FolderPicture; readonly id: string; readonly pixels: Float32Array };

async function load(
  picture: FolderPicture,
  decoder: Decoder,
  spec: ImageSpec,
  known: (id: string) => Uint16Array | string | undefined,
): Promise<LoadedFile> {
  const bytes = await readFile(picture.path).catch((cause: Error) => cause);
  if (bytes instanceof Error) return { picture, unreadable: `cannot be read: ${bytes.message}` };
  const id = pictureId(bytes);
  const content = known(id);
  if (content !== undefined) return { picture, id, content };
  try {
    // The message is kept with the content, which may get another name.
    return { picture, id, pixels: await decoder.decode({ name: "", bytes, view: asItIs, spec }) };
  } catch (error) {
    // What has a code is not the picture's fault: memory, or a thread that broke down.
    if (!(error instanceof Error) || "code" in error) throw error;
    return { picture, id, content: error.message.trim() };
  }
}

async function embed(loaded: readonly LoadedFile[], finder: Finder): Promise<EmbeddedFile[]> {
  const pixels = loaded.flatMap((file) => ("pixels" in file ? [file.pixels] : []));
  const vectors = pixels.length > 0 ? float32ToFloat16(await finder.embedPictures(pixels)) : new Uint16Array(0);
  const size = sizeOf(finder.shape);
  let row = 0;
  return loaded.map((file) => {
    if (!("pixels" in file)) return file;
    const content = vectors.slice(row++ * size, row * size);
    const usable = content.every((bits) => (bits & infinity) !== infinity);
    return { picture: file.picture, id: file.id, content: usable ? content : "has vectors that are not finite" };
  });
}

/** The exponent of float16's infinity and NaN. */
const infinity = 0x7c00;
