/** Cosine similarities of batches of embeddings, and the arithmetic of rankings. */
import { similarities } from "../models/blip2.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { type ArrayOf, ndarray, sizeOf } from "../tensor/array.ts";
import { cast } from "../tensor/ops/elementwise.ts";
import { LazySession } from "./retrieval-model.ts";

/** Values of image embeddings per session run, chosen so that they stay in the processor's cache. */
const valuesPerRun = 2 ** 20;

/** Scores images against queries with the late interaction of BLIP-2: the largest similarity over an image's vectors. */
export class Similarity<T extends "float16" | "float32"> {
  private readonly dtype: T;
  private readonly shape: readonly [count: number, size: number];
  private readonly session: LazySession<"scores">;

  /**
   * @param dtype of the image embeddings
   * @param shape of one image's embeddings
   */
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
   * @param images [images, count, size], L2-normalized
   * @param queries float32 [queries, size], L2-normalized
   * @returns the largest cosine similarity over each image's vectors, float32 [images, queries]
   */
  async score(images: ArrayOf[T], queries: Float32Array): Promise<Float32Array> {
    const row = sizeOf(this.shape);
    const [, size] = this.shape;
    const count = queries.length / size;
    const scores = new Float32Array((images.length / row) * count);
    const imagesPerRun = Math.max(1, Math.floor(valuesPerRun / row));
    const query = ndarray("float32", [count, size], queries);
    for (let start = 0; start * row < images.length; start += imagesPerRun) {
      const part = images.subarray(start * row, (start + imagesPerRun) * row) as ArrayOf[T];
      const feeds = { images: ndarray(this.dtype, [part.length / row, ...this.shape], part), queries: query };
      scores.set((await this.session.run(feeds)).scores.data as Float32Array, start * count);
    }
    return scores;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

/** Mean of each row of a table [rows, columns]. */
export function rowMeans(table: Float32Array, columns: number): Float32Array {
  return Float32Array.from({ length: table.length / columns }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += table[row * columns + i] as number;
    return sum / columns;
  });
}

/** Indices of the `count` largest scores in descending order; ties keep their order. */
export function topIndices(scores: Float32Array, count: number): number[] {
  const order = Uint32Array.from(scores, (_, i) => i);
  order.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
  return [...order.subarray(0, count)];
}
