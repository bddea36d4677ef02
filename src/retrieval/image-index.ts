/** The embeddings of all images in a folder: kept in an index file, and updated to what the folder contains now. */
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { InvalidSample } from "../data/dataset.ts";
import { defaultWorkers, originalView, startDecoder } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import { Prefetcher } from "../data/sampling.ts";
import { isTemporaryOf, removeAbandoned } from "../files/atomic.ts";
import { describeProblem, isMissing } from "../files/errors.ts";
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

export interface ImageIndex {
  /** Paths relative to the folder, with "/" as separator, in the order of the embeddings. */
  readonly names: readonly string[];
  /** Hash of each image's content, see `imageId`. */
  readonly ids: readonly string[];
  /** float16 [images, ...shape of the model]. */
  readonly vectors: Uint16Array;
  /** Images that are damaged or cannot be read. */
  readonly problems: readonly InvalidSample[];
}

export interface IndexOptions {
  /** Overwrite the file even if it is not an index; for a path in our own cache folder. @default false */
  readonly ownsFile?: boolean;
  /** Ignore an existing index and embed all images again. @default false */
  readonly rebuild?: boolean;
  /** Called after each new or changed image. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Called for each image that cannot be used; again in later updates only if the file has changed. */
  readonly onProblem?: (problem: InvalidSample) => void;
  /** Receives notes, such as why an index is rebuilt. */
  readonly onMessage?: (message: string) => void;
  /** Stops the update. What has been embedded so far is saved. */
  readonly signal?: AbortSignal;
}

/** While images are embedded, the index is saved this often (milliseconds), */
const saveInterval = 30_000;
/** but saving takes at most this share of the time. */
const maxSaveShare = 0.05;

/**
 * Updates the index at `path` to the images in `folder` and its subfolders. Embeds only what is new: unchanged files are
 * recognized by size and time, renamed and copied ones by their content. Everything is embedded again if the weights or
 * settings of the model have changed. If the update is aborted, or the process killed, only what was embedded since the last save is lost.
 *
 * @throws Error if the folder cannot be read, or `path` is a file of another kind
 */
export async function updateIndex(
  folder: string,
  model: RetrievalModel,
  path: string,
  options: IndexOptions = {},
): Promise<ImageIndex> {
  const { onProblem, onMessage, signal } = options;
  const saved = await readSavedIndex(path, options);
  const { settings, files: weightFiles } = model.fingerprint;
  const files = await hashFiles(weightFiles, saved?.header.files, signal);
  const header = { folder, settings, files, shape: [...model.shape] as [number, number] };
  const reusable = saved && hasSameModel(saved.header, header) ? saved : undefined;
  if (saved && !reusable) onMessage?.(`${path} was built with other weights or settings. Rebuilding it.`);
  const update = new IndexUpdate(header, reusable);
  const found = await listFolder(folder);
  for (const problem of found.problems) onProblem?.(problem);
  const unreadable: InvalidSample[] = [...found.problems];

  let lastSave = performance.now();
  let saveTime = 0;
  const save = async () => {
    const start = performance.now();
    try {
      await removeAbandoned(dirname(path), (name) => isTemporaryOf(path, name));
      await update.write(path);
    } catch (error) {
      onMessage?.(`Cannot save the index: ${describeProblem(error)}`);
    }
    lastSave = performance.now();
    saveTime = lastSave - start;
  };
  const changed = found.images.filter((image) => !update.keepUnchanged(image));
  try {
    let done = 0;
    for await (const { image, ...result } of embedFiles(changed, model, {
      lookUp: (id) => update.lookUp(id),
      signal,
    })) {
      if ("unreadable" in result) {
        unreadable.push({ name: image.name, reason: result.unreadable });
        onProblem?.({ name: image.name, reason: result.unreadable });
      } else {
        if (typeof result.content === "string") onProblem?.({ name: image.name, reason: result.content });
        update.add(image, result.id, result.content);
      }
      options.onProgress?.(++done, changed.length);
      if (performance.now() - lastSave > Math.max(saveInterval, saveTime / maxSaveShare)) await save();
    }
  } catch (error) {
    if (update.isDirty) await save();
    throw error;
  }
  update.dropDeleted();
  const index = update.result(unreadable);
  if (update.isDirty) await save();
  return index;
}

type SavedIndex = Awaited<ReturnType<typeof readIndex>>;

async function readSavedIndex(
  path: string,
  { rebuild, ownsFile, onMessage }: IndexOptions,
): Promise<SavedIndex | undefined> {
  try {
    const saved = await readIndex(path);
    return rebuild ? undefined : saved;
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (error instanceof ForeignFileError && !ownsFile) {
      throw new Error(`${error.message}, so it is not overwritten. Pass another path, or remove the file.`);
    }
    onMessage?.(`${error instanceof Error ? error.message : error}. Rebuilding the index.`);
    return undefined;
  }
}

type ModelHeader = Omit<IndexHeader, "images">;

function hasSameModel(saved: ModelHeader, now: ModelHeader): boolean {
  const hashes = (files: readonly HashedFile[]) => files.map(({ sha256 }) => sha256).join();
  return (
    saved.settings === now.settings &&
    hashes(saved.files) === hashes(now.files) &&
    saved.shape.join() === now.shape.join()
  );
}

/** The float16 embeddings of an image's content, or why it has none. */
type Content = Uint16Array | string;

/** Merges a saved index with the files that are in the folder now. */
class IndexUpdate {
  /** Whether the index differs from the saved file. */
  isDirty: boolean;
  private readonly header: ModelHeader;
  private readonly saved: SavedIndex | undefined;
  private readonly contents = new Map<string, Content>();
  /** Images of the saved index that have not been visited yet. */
  private readonly pending: Map<string, IndexedImage>;
  private readonly isSameFolder: boolean;
  private readonly done = new Map<string, IndexedImage>();

  constructor(header: ModelHeader, saved: SavedIndex | undefined) {
    this.header = header;
    this.saved = saved;
    this.isDirty = saved === undefined;
    this.isSameFolder = saved?.header.folder === header.folder;
    this.pending = new Map(saved?.header.images.map((image) => [image.name, image]));
    const size = sizeOf(header.shape);
    if (!saved) return;
    let row = 0;
    for (const { id, problem } of saved.header.images) {
      this.contents.set(id, problem ?? saved.vectors.subarray(row++ * size, row * size));
    }
  }

  lookUp(id: string): Content | undefined {
    return this.contents.get(id);
  }

  /** Keeps the saved entry of an image with unchanged size and time. @returns whether there is one */
  keepUnchanged({ name, bytes, modifiedMs }: FolderImage): boolean {
    const old = this.pending.get(name);
    const same = this.isSameFolder && old?.bytes === bytes && modifiedMs !== null && old.modifiedMs === modifiedMs;
    if (!old || !same) return false;
    this.pending.delete(name);
    this.done.set(name, old);
    return true;
  }

  add({ name, bytes, modifiedMs }: FolderImage, id: string, content: Content): void {
    const problem = typeof content === "string" ? content : undefined;
    const old = this.pending.get(name);
    if (!(this.isSameFolder && old?.id === id && old.bytes === bytes && old.modifiedMs === modifiedMs))
      this.isDirty = true;
    this.pending.delete(name);
    this.done.set(name, { name, bytes, modifiedMs, id, problem });
    this.contents.set(id, content);
  }

  /** Drops the images that have not been visited: they are no longer in the folder. */
  dropDeleted(): void {
    if (this.pending.size > 0) this.isDirty = true;
    this.pending.clear();
  }

  write(path: string): Promise<void> {
    const images = this.sortedImages();
    return writeIndex(path, { ...this.header, images }, this.embeddings(images));
  }

  result(unreadable: readonly InvalidSample[]): ImageIndex {
    const all = this.sortedImages();
    const usable = all.filter(({ problem }) => problem === undefined);
    const broken = all.flatMap(({ name, problem }) => (problem === undefined ? [] : [{ name, reason: problem }]));
    return {
      names: usable.map(({ name }) => name),
      ids: usable.map(({ id }) => id),
      // The saved embeddings are in the same order.
      vectors: this.saved && !this.isDirty ? this.saved.vectors : this.concatEmbeddings(usable),
      problems: [...unreadable, ...broken],
    };
  }

  private sortedImages(): IndexedImage[] {
    return [...this.done.values(), ...this.pending.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private concatEmbeddings(images: readonly IndexedImage[]): Uint16Array {
    const size = sizeOf(this.header.shape);
    const vectors = new Uint16Array(images.length * size);
    let offset = 0;
    for (const row of this.embeddings(images)) {
      vectors.set(row, offset);
      offset += size;
    }
    return vectors;
  }

  private *embeddings(images: readonly IndexedImage[]): Generator<Uint16Array> {
    for (const { id } of images) {
      const content = this.contents.get(id);
      if (content instanceof Uint16Array) yield content;
    }
  }
}

/** An image file that has been read, or why it cannot be read now. */
type EmbeddedFile = { readonly image: FolderImage } & (
  | { readonly id: string; readonly content: Content }
  | { readonly unreadable: string }
);

type LoadedFile = EmbeddedFile | { readonly image: FolderImage; readonly id: string; readonly pixels: Float32Array };

/** For fewer images, starting decoder threads takes longer than decoding. */
const minImagesForThreads = 16;

interface EmbedOptions {
  /** Returns what is already known of the content with this hash. */
  readonly lookUp: (id: string) => Content | undefined;
  readonly signal?: AbortSignal;
}

/** Decodes and embeds image files in batches, prefetching the next ones. @throws the signal's reason when it is aborted */
async function* embedFiles(
  images: readonly FolderImage[],
  model: RetrievalModel,
  { lookUp, signal }: EmbedOptions,
): AsyncGenerator<EmbeddedFile> {
  if (images.length === 0) return;
  const decoder = startDecoder(images.length < minImagesForThreads ? 0 : defaultWorkers());
  const decode = (bytes: Uint8Array) => decoder.decode({ name: "", bytes, view: originalView, spec: model.spec });
  let next = 0;
  const batches = new Prefetcher(
    async () => {
      next += imageBatchSize;
      return images.slice(next - imageBatchSize, next);
    },
    (batch) => Promise.all(batch.map((image) => loadFile(image, decode, lookUp))),
    2,
  );
  try {
    for (let start = 0; start < images.length; start += imageBatchSize) {
      signal?.throwIfAborted();
      yield* await embedBatch(await batches.next(), model);
    }
  } finally {
    await batches.settle();
    await decoder.close();
  }
}

async function loadFile(
  image: FolderImage,
  decode: (bytes: Uint8Array) => Promise<Float32Array>,
  lookUp: EmbedOptions["lookUp"],
): Promise<LoadedFile> {
  const bytes = await readFile(image.path).catch((cause: Error) => cause);
  if (bytes instanceof Error) return { image, unreadable: `cannot be read: ${bytes.message}` };
  const id = imageId(bytes);
  const content = lookUp(id);
  if (content !== undefined) return { image, id, content };
  try {
    // The error is stored without a file name, since the file may be renamed.
    return { image, id, pixels: await decode(bytes) };
  } catch (error) {
    // An error with a code is not the image's fault: out of memory, or a crashed thread.
    if (!(error instanceof Error) || ("code" in error && error.code !== "invalid_image")) throw error;
    return { image, id, content: error.message.trim() };
  }
}

async function embedBatch(loaded: readonly LoadedFile[], model: RetrievalModel): Promise<EmbeddedFile[]> {
  const pixels = loaded.flatMap((file) => ("pixels" in file ? [file.pixels] : []));
  const vectors = pixels.length > 0 ? float32ToFloat16(await model.embedImages(pixels)) : new Uint16Array(0);
  const size = sizeOf(model.shape);
  let row = 0;
  return loaded.map((file) => {
    if (!("pixels" in file)) return file;
    const content = vectors.slice(row++ * size, row * size);
    const valid = content.every((bits) => (bits & exponentMask) !== exponentMask);
    return { image: file.image, id: file.id, content: valid ? content : "has embeddings that are not finite" };
  });
}

/** float16 values with all exponent bits set are infinite or NaN. */
const exponentMask = 0x7c00;
