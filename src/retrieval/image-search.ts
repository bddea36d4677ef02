/** Finds images in a folder, by words or by another image. */

import { createHash } from "node:crypto";
import { mkdir, readFile, realpath } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { modelPath } from "../chat/minigpt4.ts";
import type { InvalidSample } from "../data/dataset.ts";
import { decodeImage, originalView } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import { type ImageInput, RequestError } from "../engine/engine.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { ImageError, readImage } from "../images/decode.ts";
import { preprocess } from "../images/preprocess.ts";
import { similarities } from "../models/blip2.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { type ArrayOf, ndarray, sizeOf } from "../tensor/array.ts";
import { float16ToFloat32 } from "../tensor/float16.ts";
import { cast } from "../tensor/ops/elementwise.ts";
import { type ImageIndex, type IndexOptions, updateIndex } from "./image-index.ts";
import { openRetrievalModel, type RetrievalModelOptions } from "./open-retrieval-model.ts";
import { LazySession, type RetrievalModel } from "./retrieval-model.ts";

// How near images are to texts and to each other: cosine similarities of many vectors at once, in the engine.

/** Values of so many images go through the engine at once as stay in the processor's cache on their way. */
const valuesAtOnce = 2 ** 20;

export class Similarity<T extends "float16" | "float32"> {
  private readonly dtype: T;
  private readonly shape: readonly [count: number, size: number];
  private readonly session: LazySession<"scores">;

  /** @param dtype of the images' vectors. @param shape vectors of one image */
  constructor(dtype: T, shape: readonly [count: number, size: number], options: SessionOptions = {}) {
    this.dtype = dtype;
    this.shape = shape;
    this.session = new LazySession((graph) => {
      const images = graph.input("images", dtype, ["images", ...shape]);
      const queries = graph.input("queries", "float32", ["queries", shape[1]]);
      return { scores: similarities(dtype === "float32" ? images : cast(images, "float32"), queries) };
    }, options);
  }

  /**
   * For each image and query the largest of the cosine similarities of the image's vectors.
   * @param images [images, ...shape]. @param queries [queries, size] @returns [images, queries]
   */
  async of(images: ArrayOf[T], queries: Float32Array): Promise<Float32Array> {
    const row = sizeOf(this.shape);
    const [, size] = this.shape;
    const count = queries.length / size;
    const scores = new Float32Array((images.length / row) * count);
    const atOnce = Math.max(1, Math.floor(valuesAtOnce / row));
    const query = ndarray("float32", [count, size], queries);
    for (let start = 0; start * row < images.length; start += atOnce) {
      const part = images.subarray(start * row, (start + atOnce) * row) as ArrayOf[T];
      const feeds = { images: ndarray(this.dtype, [part.length / row, ...this.shape], part), queries: query };
      scores.set((await this.session.run(feeds)).scores.data as Float32Array, start * count);
    }
    return scores;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

/** The mean of each row of a table [rows, columns]. */
export function rowMeans(table: Float32Array, columns: number): Float32Array {
  return Float32Array.from({ length: table.length / columns }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += table[row * columns + i] as number;
    return sum / columns;
  });
}

/** Places of the `count` largest scores, the largest first, and of equal ones the first first. */
export function largest(scores: Float32Array, count: number): number[] {
  const places = Uint32Array.from(scores, (_, i) => i);
  places.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
  return [...places.subarray(0, count)];
}

export interface SearchOptions extends RetrievalModelOptions, Omit<IndexOptions, "ownsFile"> {
  /** A MiniGPT-4 that has a contrastive head, or the folder of a pre-trained Q-Former; `"nano"` by default. */
  readonly model?: string;
  /** Where the index is kept; a file of its own for each folder and model in the user's cache by default. */
  readonly index?: string;
}

export interface FindOptions {
  /** Most images that are found; 10 by default. */
  readonly top?: number;
  /**
   * So many of the nearest images are looked at together with the text, where the model has a head for that, and come first; 32
   * by default, 0 for none. For images that were not looked at before, this needs the image encoder.
   */
  readonly rerank?: number;
  readonly signal?: AbortSignal;
}

export interface FoundImage {
  readonly path: string;
  /** Path below the folder, with "/" between its parts. */
  readonly name: string;
  /** `itc`, plus `itm` where there is one, as BLIP-2's evaluation adds them. */
  readonly score: number;
  /** Cosine similarity (image-text contrast). */
  readonly itc: number;
  /** Logit of the head for image-text matching, for images that were looked at together with the text. */
  readonly itm?: number;
  /** Probability that image and text belong together, by the same head. */
  readonly probability?: number;
}

const topByDefault = 10;
const rerankByDefault = 32;

/** What a search is made of. */
interface Parts {
  readonly folder: string;
  readonly finder: RetrievalModel;
  /** Reads the folder again. */
  readonly update: (options: IndexOptions) => Promise<ImageIndex>;
  readonly options: RetrievalModelOptions;
}

/** Images of one folder, found by one model, which runs on the calling thread: that is blocked while it computes. */
export class ImageSearch {
  private readonly parts: Parts;
  private readonly similarity: Similarity<"float16">;
  private index: ImageIndex;

  private constructor(parts: Parts, index: ImageIndex) {
    const { device, threads } = parts.options;
    this.parts = parts;
    this.index = index;
    this.similarity = new Similarity("float16", parts.finder.shape, {
      ...(device && { device }),
      ...(threads && { threads }),
    });
  }

  /**
   * Opens a model and the index of a folder and the folders below it; what is new there is indexed.
   * @throws Error naming what is missing or does not fit
   */
  static async open(folder: string, options: SearchOptions = {}): Promise<ImageSearch> {
    const { model = "nano", index, rebuild, onProgress, onProblem, signal, ...finderOptions } = options;
    // An index belongs to a place, whatever it is called.
    const place = await realpath(folder);
    const path = index ?? indexPath(place, model);
    await mkdir(dirname(path), { recursive: true });
    const finder = await openRetrievalModel(model, finderOptions);
    try {
      const { onMessage } = finderOptions;
      const own = { ownsFile: index === undefined, ...(onMessage && { onMessage }) };
      const update = (more: IndexOptions) => updateIndex(place, finder, path, { ...own, ...more });
      const first = await update({
        ...(rebuild && { rebuild }),
        ...(onProgress && { onProgress }),
        ...(onProblem && { onProblem }),
        ...(signal && { signal }),
      });
      return new ImageSearch({ folder, finder, update, options: finderOptions }, first);
    } catch (error) {
      await finder.close();
      throw error;
    }
  }

  /** Images that can be found. */
  get size(): number {
    return this.index.names.length;
  }

  /** Images that cannot be found, because they are damaged or cannot be read. */
  get problems(): readonly InvalidSample[] {
    return this.index.problems;
  }

  /** Takes in what was added, changed or removed in the folder. */
  async update(options: Pick<IndexOptions, "onProgress" | "onProblem" | "signal"> = {}): Promise<void> {
    this.index = await this.parts.update(options);
  }

  /** The images that a text fits best, the best first. @throws QuestionError if the text has no word that counts */
  async search(
    text: string,
    { top = topByDefault, rerank = rerankByDefault, signal }: FindOptions = {},
  ): Promise<FoundImage[]> {
    signal?.throwIfAborted();
    const { finder } = this.parts;
    const [query] = await finder.embedTexts([text]);
    const scores = await this.similarity.of(this.index.vectors, query as Float32Array);
    const looksTwice = finder.match !== undefined && rerank > 0;
    const places = largest(scores, Math.max(top, looksTwice ? rerank : 0));
    const found = places.map((place) => this.found(place, scores[place] as number));
    if (!looksTwice) return found.slice(0, top);
    const first = await this.matched(places.slice(0, rerank), found, text, signal);
    return [...first.sort((a, b) => b.score - a.score), ...found.slice(rerank)].slice(0, top);
  }

  /**
   * The images that are most like another one, which may be one of them. Compared are the vectors of both: for each of the given
   * image's the nearest of the other's, and of these similarities the mean (as Khattab and Zaharia compare texts, arXiv 2004.12832).
   * @throws QuestionError if it cannot be read
   */
  async like(
    image: ImageInput,
    { top = topByDefault, signal }: Omit<FindOptions, "rerank"> = {},
  ): Promise<FoundImage[]> {
    signal?.throwIfAborted();
    const [count] = this.parts.finder.shape;
    const table = await this.similarity.of(this.index.vectors, await this.vectorsOf(image));
    const scores = rowMeans(table, count);
    return largest(scores, top).map((place) => this.found(place, scores[place] as number));
  }

  /** Frees the model's memory. */
  async close(): Promise<void> {
    await this.similarity.close();
    await this.parts.finder.close();
  }

  private found(place: number, itc: number): FoundImage {
    const name = this.index.names[place] as string;
    return { path: join(this.parts.folder, name), name, score: itc, itc };
  }

  /** The images at some places, looked at together with a text; without those that are not as they were indexed any more. */
  private async matched(
    places: readonly number[],
    found: readonly FoundImage[],
    text: string,
    signal: AbortSignal | undefined,
  ): Promise<FoundImage[]> {
    const { finder } = this.parts;
    const candidates = places.map((place, i) => ({
      id: this.index.ids[place] as string,
      image: found[i] as FoundImage,
    }));
    const gone = new Set<string>();
    for (;;) {
      const there = candidates.filter(({ image }) => !gone.has(image.name));
      const pairs = there.map(({ id, image }) => ({ text, image: { id, pixels: () => this.pixels(image, id) } }));
      try {
        const matches = (await finder.match?.(pairs, signal)) ?? [];
        return there.flatMap(({ image }, i) => {
          const match = matches[i];
          return match
            ? [{ ...image, score: image.itc + match.logit, itm: match.logit, probability: match.probability }]
            : [];
        });
      } catch (error) {
        if (!(error instanceof GoneError)) throw error;
        gone.add(error.image);
      }
    }
  }

  /** The encoder's input of an image that was indexed. @throws GoneError if it is another one now */
  private async pixels({ path, name }: FoundImage, id: string): Promise<Float32Array> {
    const bytes = await readFile(path).catch(() => undefined);
    if (!bytes || imageId(bytes) !== id) throw new GoneError(name);
    return decodeImage({ name: path, bytes, view: originalView, spec: this.parts.finder.spec });
  }

  /** Vectors of any image, from the index if it is there. */
  private async vectorsOf(image: ImageInput): Promise<Float32Array> {
    const { finder } = this.parts;
    try {
      // First as an image: its errors say more.
      const pixels = await readImage(image);
      const bytes = typeof image === "string" ? await readFile(image) : image;
      const place = this.index.ids.indexOf(imageId(bytes));
      const row = sizeOf(finder.shape);
      if (place >= 0) return float16ToFloat32(this.index.vectors.subarray(place * row, (place + 1) * row));
      return await finder.embedImages([preprocess(pixels, finder.spec).data]);
    } catch (cause) {
      if (cause instanceof ImageError) throw new RequestError("image", cause.message, { cause });
      throw cause;
    }
  }
}

/** An image that is not what was indexed any more. */
class GoneError extends Error {
  readonly image: string;

  constructor(image: string) {
    super(`${image} was changed or removed since the folder was indexed`);
    this.image = image;
  }
}

/** Where the index of a folder and a model lies. */
function indexPath(folder: string, model: string): string {
  const key = createHash("sha256")
    .update(JSON.stringify([folder, resolve(modelPath(model))]))
    .digest("hex");
  return join(cacheFolder(), "indexes", `${key.slice(0, 32)}.images`);
}
