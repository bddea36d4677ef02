/** The vectors of all images in a folder, kept in a file, and brought up to date with what is in the folder. */

import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { InvalidSample } from "../data/dataset.ts";
import { type Decoder, defaultWorkers, originalView, startDecoder } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import { Prefetcher } from "../data/sampling.ts";
import { isTemporaryOf, removeAbandoned } from "../files/atomic.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import { sizeOf } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import {
  type FolderImage,
  ForeignFileError,
  type HashedFile,
  hashFiles,
  type IndexedImage,
  type IndexHeader,
  listFolder,
  readIndex,
  writeIndex,
} from "./index-file.ts";
import { imageBatchSize, type RetrievalModel } from "./retrieval-model.ts";

// Image files become vectors, some at a time; what fails is told of each by itself.

type EmbeddedFile = { readonly image: FolderImage } & (
  | {
      readonly id: string;
      /** Its vectors as float16, or why it has none. */
      readonly content: Uint16Array | string;
    }
  /** Why the file cannot be read now. */
  | { readonly unreadable: string }
);

/** For fewer images, threads that decode are not worth their start. */
const fewImages = 16;

/**
 * @param known what is known of a content already
 * @throws the signal's reason when it is aborted
 */
async function* embedFiles(
  images: readonly FolderImage[],
  finder: RetrievalModel,
  known: (id: string) => Uint16Array | string | undefined,
  signal?: AbortSignal,
): AsyncGenerator<EmbeddedFile> {
  if (images.length === 0) return;
  const decoder = startDecoder(images.length < fewImages ? 0 : defaultWorkers());
  let next = 0;
  const batches = new Prefetcher(
    async () => {
      next += imageBatchSize;
      return images.slice(next - imageBatchSize, next);
    },
    (batch) => Promise.all(batch.map((image) => load(image, decoder, finder.spec, known))),
    2,
  );
  try {
    for (let start = 0; start < images.length; start += imageBatchSize) {
      signal?.throwIfAborted();
      yield* await embed(await batches.next(), finder);
    }
  } finally {
    await batches.settle();
    await decoder.close();
  }
}

type LoadedFile = EmbeddedFile | { readonly image: FolderImage; readonly id: string; readonly pixels: Float32Array };

async function load(
  image: FolderImage,
  decoder: Decoder,
  spec: ImageSpec,
  known: (id: string) => Uint16Array | string | undefined,
): Promise<LoadedFile> {
  const bytes = await readFile(image.path).catch((cause: Error) => cause);
  if (bytes instanceof Error) return { image, unreadable: `cannot be read: ${bytes.message}` };
  const id = imageId(bytes);
  const content = known(id);
  if (content !== undefined) return { image, id, content };
  try {
    // The message is kept with the content, which may get another name.
    return { image, id, pixels: await decoder.decode({ name: "", bytes, view: originalView, spec }) };
  } catch (error) {
    // What has a code is not the image's fault: memory, or a thread that broke down.
    if (!(error instanceof Error) || "code" in error) throw error;
    return { image, id, content: error.message.trim() };
  }
}

async function embed(loaded: readonly LoadedFile[], finder: RetrievalModel): Promise<EmbeddedFile[]> {
  const pixels = loaded.flatMap((file) => ("pixels" in file ? [file.pixels] : []));
  const vectors = pixels.length > 0 ? float32ToFloat16(await finder.embedImages(pixels)) : new Uint16Array(0);
  const size = sizeOf(finder.shape);
  let row = 0;
  return loaded.map((file) => {
    if (!("pixels" in file)) return file;
    const content = vectors.slice(row++ * size, row * size);
    const usable = content.every((bits) => (bits & infinity) !== infinity);
    return { image: file.image, id: file.id, content: usable ? content : "has vectors that are not finite" };
  });
}

/** The exponent of float16's infinity and NaN. */
const infinity = 0x7c00;

export interface ImageIndex {
  /** Paths below the folder, with "/" between their parts, in the order of the vectors. */
  readonly names: readonly string[];
  /** Of each image's bytes, see `imageId`. */
  readonly ids: readonly string[];
  /** float16 [images, ...shape of the finder]. */
  readonly vectors: Uint16Array;
  /** Images that cannot be found, because they are damaged or cannot be read. */
  readonly problems: readonly InvalidSample[];
}

export interface IndexOptions {
  /** Whether the file may be written over although it is no index, as it lies where nobody else has files. */
  readonly ownsFile?: boolean;
  /** Everything is computed anew. */
  readonly rebuild?: boolean;
  readonly onProgress?: (done: number, total: number) => void;
  /** Told of each image that turns out to be unusable; not again at a later time, unless it changes. */
  readonly onProblem?: (problem: InvalidSample) => void;
  readonly onMessage?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/** Least time between two times at which what was computed is kept (milliseconds). */
const keepEvery = 30_000;
/** Keeping may take this share of the time. */
const keepShare = 0.05;

/**
 * The index of a folder's images, also in the folders below it. What is in the file at `path` is not computed again, unless the
 * weights are others; what was changed, renamed or copied is told by its content. An abort, or being killed, loses at most
 * what was computed since the file was last written.
 *
 * @throws Error if the folder cannot be read, or the file is something else
 */
export async function updateIndex(
  folder: string,
  finder: RetrievalModel,
  path: string,
  options: IndexOptions = {},
): Promise<ImageIndex> {
  const { onProblem, onMessage, signal } = options;
  const kept = await readKept(path, options);
  const files = await hashFiles(finder.fingerprint.files, kept?.head.files, signal);
  const old = kept && madeAlike(kept.head, finder, files) ? kept : undefined;
  if (kept && !old) onMessage?.(`${path} was made with other weights or settings; the index is made anew`);
  const state = new IndexState({ folder, settings: finder.fingerprint.settings, files, shape: [...finder.shape] }, old);
  const found = await listFolder(folder);
  for (const problem of found.problems) onProblem?.(problem);
  const unread: InvalidSample[] = [...found.problems];

  let lastKept = performance.now();
  let keepTime = 0;
  const keep = async () => {
    const started = performance.now();
    try {
      await removeAbandoned(dirname(path), (name) => isTemporaryOf(path, name));
      await state.write(path);
    } catch (error) {
      onMessage?.(`The index cannot be kept: ${error instanceof Error ? error.message : error}`);
    }
    lastKept = performance.now();
    keepTime = lastKept - started;
  };
  const changed = found.images.filter((image) => !state.takeUnchanged(image));
  try {
    const results = embedFiles(changed, finder, (id) => state.contentOf(id), signal);
    let done = 0;
    for await (const { image, ...result } of results) {
      if ("unreadable" in result) {
        unread.push({ name: image.name, reason: result.unreadable });
        onProblem?.({ name: image.name, reason: result.unreadable });
      } else {
        if (typeof result.content === "string") onProblem?.({ name: image.name, reason: result.content });
        state.add(image, result.id, result.content);
      }
      options.onProgress?.(++done, changed.length);
      if (performance.now() - lastKept > Math.max(keepEvery, keepTime / keepShare)) await keep();
    }
  } catch (error) {
    if (state.hasNew) await keep();
    throw error;
  }
  state.forgetOthers();
  const index = state.index(unread);
  if (state.hasNew) await keep();
  return index;
}

type Kept = Awaited<ReturnType<typeof readIndex>>;

async function readKept(path: string, { rebuild, ownsFile, onMessage }: IndexOptions): Promise<Kept | undefined> {
  try {
    const kept = await readIndex(path);
    return rebuild ? undefined : kept;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    if (error instanceof ForeignFileError && !ownsFile) {
      throw new Error(`${error.message}; it is left as it is. Give another path, or remove it`);
    }
    onMessage?.(`${error instanceof Error ? error.message : error}; the index is made anew`);
    return undefined;
  }
}

function madeAlike(
  { settings, files, shape }: IndexHeader,
  { fingerprint, shape: own }: RetrievalModel,
  now: readonly HashedFile[],
): boolean {
  const sums = (all: readonly HashedFile[]) => all.map(({ sha256 }) => sha256).join();
  return settings === fingerprint.settings && sums(files) === sums(now) && shape.join() === own.join();
}

/** Vectors of an image's content as float16, or why it has none. */
type Content = Uint16Array | string;

/** What is known while an index is brought up to date. */
class IndexState {
  /** Whether there is something that the file does not have. */
  hasNew: boolean;
  private readonly head: Omit<IndexHeader, "images">;
  private readonly kept: Kept | undefined;
  private readonly contents = new Map<string, Content>();
  /** What the file says of images whose turn has not come. */
  private readonly old: Map<string, IndexedImage>;
  private readonly isSameFolder: boolean;
  private readonly done = new Map<string, IndexedImage>();

  constructor(head: Omit<IndexHeader, "images">, kept: Kept | undefined) {
    this.head = head;
    this.kept = kept;
    this.hasNew = kept === undefined;
    this.isSameFolder = kept?.head.folder === head.folder;
    this.old = new Map(kept?.head.images.map((image) => [image.name, image]));
    const size = sizeOf(head.shape);
    if (!kept) return;
    let row = 0;
    for (const { id, problem } of kept.head.images) {
      this.contents.set(id, problem ?? kept.vectors.subarray(row++ * size, row * size));
    }
  }

  contentOf(id: string): Content | undefined {
    return this.contents.get(id);
  }

  /** Whether an image is as it was, by size and time; then it is done. */
  takeUnchanged({ name, bytes, modifiedMs }: FolderImage): boolean {
    const old = this.old.get(name);
    const same = this.isSameFolder && old?.bytes === bytes && modifiedMs !== null && old.modifiedMs === modifiedMs;
    if (!old || !same) return false;
    this.old.delete(name);
    this.done.set(name, old);
    return true;
  }

  add({ name, bytes, modifiedMs }: FolderImage, id: string, content: Content): void {
    const problem = typeof content === "string" ? { problem: content } : {};
    const now: IndexedImage = { name, bytes, modifiedMs, id, ...problem };
    const old = this.old.get(name);
    if (!(this.isSameFolder && old?.id === id && old.bytes === bytes && old.modifiedMs === modifiedMs))
      this.hasNew = true;
    this.old.delete(name);
    this.done.set(name, now);
    this.contents.set(id, content);
  }

  /** All turns have come: what is left of the file is gone from the folder. */
  forgetOthers(): void {
    if (this.old.size > 0) this.hasNew = true;
    this.old.clear();
  }

  write(path: string): Promise<void> {
    const images = this.images();
    return writeIndex(path, { ...this.head, images }, this.rowsOf(images));
  }

  index(unread: readonly InvalidSample[]): ImageIndex {
    const all = this.images();
    const usable = all.filter(({ problem }) => problem === undefined);
    const broken = all.flatMap(({ name, problem }) => (problem === undefined ? [] : [{ name, reason: problem }]));
    return {
      names: usable.map(({ name }) => name),
      ids: usable.map(({ id }) => id),
      // The file has them in the same order.
      vectors: this.kept && !this.hasNew ? this.kept.vectors : this.joined(usable),
      problems: [...unread, ...broken],
    };
  }

  /** By name. */
  private images(): IndexedImage[] {
    return [...this.done.values(), ...this.old.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private joined(usable: readonly IndexedImage[]): Uint16Array {
    const size = sizeOf(this.head.shape);
    const vectors = new Uint16Array(usable.length * size);
    let at = 0;
    for (const row of this.rowsOf(usable)) {
      vectors.set(row, at);
      at += size;
    }
    return vectors;
  }

  private *rowsOf(images: readonly IndexedImage[]): Generator<Uint16Array> {
    for (const { id } of images) {
      const content = this.contents.get(id);
      if (content instanceof Uint16Array) yield content;
    }
  }
}
