/** How near pictures are to texts and to each other: cosine similarities of many vectors at once, in the engine. */
import { similarities } from "../models/blip2.ts";
import { type ArrayOf, ndarray, sizeOf } from "../tensor/array.ts";
import { cast } from "../tensor/elementwise.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { LazySession } from "./lazy-session.ts";

/** Values of so many pictures go through the engine at once as stay in the processor's cache on their way. */
const valuesAtOnce = 2 ** 20;

export class Similarity<T extends "float16" | "float32"> {
  private readonly dtype: T;
  private readonly shape: readonly [count: number, size: number];
  private readonly session: LazySession<"scores">;

  /** @param dtype of the pictures' vectors. @param shape vectors of one picture */
  constructor(dtype: T, shape: readonly [count: number, size: number], options: SessionOptions = {}) {
    this.dtype = dtype;
    this.shape = shape;
    this.session = new LazySession((graph) => {
      const pictures = graph.input("pictures", dtype, ["pictures", ...shape]);
      const queries = graph.input("queries", "float32", ["queries", shape[1]]);
      return { scores: similarities(dtype === "float32" ? pictures : cast(pictures, "float32"), queries) };
    }, options);
  }

  /**
   * For each picture and query the largest of the cosine similarities of the picture's vectors.
   * @param pictures [pictures, ...shape]. @param queries [queries, size] @returns [pictures, queries]
   */
  async of(pictures: ArrayOf[T], queries: Float32Array): Promise<Float32Array> {
    const row = sizeOf(this.shape);
    const [, size] = this.shape;
    const count = queries.length / size;
    const scores = new Float32Array((pictures.length / row) * count);
    const atOnce = Math.max(1, Math.floor(valuesAtOnce / row));
    const query = ndarray("float32", [count, size], queries);
    for (let start = 0; start * row < pictures.length; start += atOnce) {
      const part = pictures.subarray(start * row, (start + atOnce) * row) as ArrayOf[T];
      const feeds = { pictures: ndarray(this.dtype, [part.length / row, ...this.shape], part), queries: query };
      scores.set((await this.session.run(feeds)).scores.data as Float32Array, start * count);
    }
    return scores;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** The mean of each row of a table [rows, columns]. */
export function meanOfRows(table: Float32Array, columns: number): Float32Array {
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
