/** Image search on the calling thread, which is blocked while the model runs. `ImageSearch` runs it in a process of its own. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { InvalidSample } from "../data/dataset.ts";
import { decodeImage, originalView } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import type { ImageInput } from "../engine/engine.ts";
import { RequestError } from "../errors.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { ImageError, readImage } from "../images/decode.ts";
import { preprocess } from "../images/preprocess.ts";
import { sizeOf } from "../tensor/array.ts";
import { float16ToFloat32 } from "../tensor/float16.ts";
import { type ImageIndex, type IndexOptions, updateIndex } from "./image-index.ts";
import { openRetrievalModel, type RetrievalModelOptions } from "./open-retrieval-model.ts";
import type { CandidatePair, RetrievalModel } from "./retrieval-model.ts";
import { rowMeans, Similarity, topIndices } from "./similarity.ts";

export interface FindOptions {
  /** Number of results. @default 10 */
  readonly top?: number;
  /**
   * Re-rank this many of the nearest images with the image-text matching head, if the model has one; 0 turns re-ranking off.
   * Needs the image encoder for images whose features are not cached. @default 32
   */
  readonly rerank?: number;
  /** Cancels the search; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface FoundImage {
  readonly path: string;
  /** Path relative to the folder, with "/" as separator. */
  readonly name: string;
  /** `itc`, plus `itm` if the image was re-ranked, as in BLIP-2's evaluation. */
  readonly score: number;
  /** Cosine similarity (image-text contrast). */
  readonly itc: number;
  /** Logit of the image-text matching head, if the image was re-ranked. */
  readonly itm?: number;
  /** Probability that image and text match, by the same head. */
  readonly probability?: number;
}

export interface LocalSearchOptions extends Omit<RetrievalModelOptions, "pull">, Omit<IndexOptions, "ownsFile"> {
  /** Folder of the model. */
  readonly modelPath: string;
  /** Path of the index file. @default a file in the user's cache folder, one for each folder and model */
  readonly index?: string;
}

interface SearchParts {
  readonly folder: string;
  readonly model: RetrievalModel;
  readonly similarity: Similarity<"float16">;
  readonly update: (options: IndexOptions) => Promise<ImageIndex>;
}

export class LocalImageSearch {
  private readonly parts: SearchParts;
  private index: ImageIndex;

  private constructor(parts: SearchParts, index: ImageIndex) {
    this.parts = parts;
    this.index = index;
  }

  /** @param folder its real path: the index of a folder is found again whatever link leads to it */
  static async open(folder: string, options: LocalSearchOptions): Promise<LocalImageSearch> {
    const { modelPath, index, rebuild, onProgress, onProblem, signal, ...modelOptions } = options;
    const path = index ?? (await cachedIndexPath(folder, modelPath));
    await mkdir(dirname(path), { recursive: true });
    const model = await openRetrievalModel(modelPath, modelOptions);
    try {
      const { device, threads, onMessage } = modelOptions;
      const own = { ownsFile: index === undefined, onMessage };
      const update = (more: IndexOptions) => updateIndex(folder, model, path, { ...own, ...more });
      const similarity = new Similarity("float16", model.shape, { device, threads });
      const first = await update({ rebuild, onProgress, onProblem, signal });
      return new LocalImageSearch({ folder, model, similarity, update }, first);
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  get size(): number {
    return this.index.names.length;
  }

  get problems(): readonly InvalidSample[] {
    return this.index.problems;
  }

  async update(options: Pick<IndexOptions, "onProgress" | "onProblem" | "signal"> = {}): Promise<void> {
    this.index = await this.parts.update(options);
  }

  async search(text: string, { top = 10, rerank = 32, signal }: FindOptions = {}): Promise<FoundImage[]> {
    signal?.throwIfAborted();
    const { model, similarity } = this.parts;
    const { index } = this;
    const [query] = await model.embedTexts([text]);
    const scores = await similarity.score(index.vectors, query as Float32Array);
    const reranks = model.match !== undefined && rerank > 0;
    const nearest = topIndices(scores, Math.max(top, reranks ? rerank : 0));
    const found = nearest.map((i) => this.toResult(index, i, scores[i] as number));
    if (!reranks) return found.slice(0, top);
    const candidates = nearest.slice(0, rerank).map((i, rank) => ({
      id: index.ids[i] as string,
      image: found[rank] as FoundImage,
    }));
    const reranked = await this.rerank(candidates, text, signal);
    return [...reranked.sort((a, b) => b.score - a.score), ...found.slice(rerank)].slice(0, top);
  }

  async like(image: ImageInput, { top = 10, signal }: Omit<FindOptions, "rerank"> = {}): Promise<FoundImage[]> {
    signal?.throwIfAborted();
    const { model, similarity } = this.parts;
    const { index } = this;
    const [count] = model.shape;
    const table = await similarity.score(index.vectors, await this.embedImage(index, image));
    const scores = rowMeans(table, count);
    return topIndices(scores, top).map((i) => this.toResult(index, i, scores[i] as number));
  }

  async close(): Promise<void> {
    await this.parts.similarity.close();
    await this.parts.model.close();
  }

  private toResult({ names }: ImageIndex, i: number, itc: number): FoundImage {
    const name = names[i] as string;
    return { path: join(this.parts.folder, name), name, score: itc, itc };
  }

  /** Adds the matching logits to the scores. Images that have changed since they were indexed are dropped. */
  private async rerank(
    candidates: readonly { readonly id: string; readonly image: FoundImage }[],
    text: string,
    signal?: AbortSignal,
  ): Promise<FoundImage[]> {
    const changed = new Set<string>();
    for (;;) {
      const remaining = candidates.filter(({ image }) => !changed.has(image.name));
      const pairs = remaining.map(
        ({ id, image }): CandidatePair => ({ text, image: { id, pixels: () => this.decode(image, id) } }),
      );
      try {
        const matches = (await this.parts.model.match?.(pairs, signal)) ?? [];
        return remaining.flatMap(({ image }, i) => {
          const match = matches[i];
          if (!match) return [];
          return [{ ...image, score: image.itc + match.logit, itm: match.logit, probability: match.probability }];
        });
      } catch (error) {
        if (!(error instanceof ImageChangedError)) throw error;
        changed.add(error.image);
      }
    }
  }

  /** Decodes an indexed image for the encoder. @throws ImageChangedError if its content is no longer the indexed one */
  private async decode({ path, name }: FoundImage, id: string): Promise<Float32Array> {
    const bytes = await readFile(path).catch(() => undefined);
    if (!bytes || imageId(bytes) !== id) throw new ImageChangedError(name);
    return decodeImage({ name: path, bytes, view: originalView, spec: this.parts.model.spec });
  }

  /** Embeddings of any image, taken from the index if it contains the image. */
  private async embedImage(index: ImageIndex, image: ImageInput): Promise<Float32Array> {
    const { model } = this.parts;
    try {
      // Decoded before its bytes are read for the hash, because errors of the decoder name the path and the reason.
      const pixels = await readImage(image);
      const bytes = typeof image === "string" ? await readFile(image) : image;
      const i = index.ids.indexOf(imageId(bytes));
      const row = sizeOf(model.shape);
      if (i >= 0) return float16ToFloat32(index.vectors.subarray(i * row, (i + 1) * row));
      return await model.embedImages([preprocess(pixels, model.spec).data]);
    } catch (cause) {
      if (cause instanceof ImageError) throw new RequestError("invalid_image", cause.message, { cause });
      throw cause;
    }
  }
}

/** An image is no longer what was indexed. */
class ImageChangedError extends Error {
  readonly image: string;

  constructor(image: string) {
    super(`${image} was changed or removed since the folder was indexed`);
    this.image = image;
  }
}

/** Path of the index of a folder and a model in the user's cache folder. An index under its former name is renamed. */
async function cachedIndexPath(folder: string, model: string): Promise<string> {
  const key = createHash("sha256")
    .update(JSON.stringify([folder, model]))
    .digest("hex");
  const stem = join(cacheFolder(), "indexes", key.slice(0, 32));
  const path = `${stem}.images`;
  if (!existsSync(path) && existsSync(`${stem}.pictures`)) await rename(`${stem}.pictures`, path);
  return path;
}
