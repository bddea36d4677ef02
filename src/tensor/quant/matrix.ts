/**
 * A matrix [rows, columns] that knows how it is multiplied. Each kind is one file: `dense.ts` (float32), `blocks.ts` (4 or 8 bits in
 * blocks), `int8.ts` (8-bit arithmetic) and `tiled-int8.ts` (int8, multiplied where it lies in a file).
 *
 * The size is known when the graph is built; the data is loaded when the model is written.
 */
import type { Value } from "../graph.ts";

export abstract class Matrix {
  abstract readonly kind: "float32" | "blocks" | "int8" | "tiled-int8";
  /** Prefix of the names that its constants have in a graph. */
  abstract readonly name: string;
  abstract readonly rows: number;
  abstract readonly columns: number;

  /** x [..., columns] times the transposed matrix -> [..., rows]. */
  abstract matmul(x: Value): Value;

  /** Rows by their indices: ids int64 [...] -> [...ids, columns]. */
  abstract gather(ids: Value): Value;

  /** The float32 values, row-major: of a quantized matrix those that it stands for. */
  abstract readFloat32(): Promise<Float32Array>;

  /** One matrix with the rows of this one and of `others` below; undefined where they cannot be one product. */
  concat(_others: readonly Matrix[]): Matrix | undefined {
    return undefined;
  }

  /**
   * The products of x [..., columns] with this matrix and with `others`, all of one size, combined by an elementwise function -> [..., rows].
   * A kind may apply the function before it puts the columns of the products in order.
   */
  combine(x: Value, others: readonly Matrix[], elementwise: (products: readonly Value[]) => Value): Value {
    return elementwise([this as Matrix, ...others].map((matrix) => matrix.matmul(x)));
  }

  /** The matrix as it is stored in int8 with one scale per row; undefined for other kinds. */
  readInt8(): Promise<Int8Columns> | undefined {
    return undefined;
  }
}

/** A matrix [rows, columns] in int8, transposed: element [row, column] = bytes[column * rows + row] * scales[row]. */
export interface Int8Columns {
  /** [columns, rows]. */
  readonly bytes: Int8Array;
  /** [rows]. */
  readonly scales: Float32Array;
}

/** @throws Error if the last axis of x is not the columns of the matrix */
export function checkInnerSize(x: Value, { name, rows, columns }: Pick<Matrix, "name" | "rows" | "columns">): void {
  if (x.dim(-1) === columns && x.dtype === "float32") return;
  throw new Error(
    `${x.graph.where()}matmul of ${x} with "${name}" [${rows}, ${columns}]: expected float32 [..., ${columns}]`,
  );
}

/**
 * Loads something once for several constants. It is released when `consumers` calls have returned it: a graph outlives the
 * writing of its model, so anything that it holds would be in memory twice.
 */
export function loadOnce<T>(load: () => Promise<T>, consumers: number): () => Promise<T> {
  let loading: Promise<T> | undefined;
  let calls = 0;
  return () => {
    loading ??= load();
    const current = loading;
    calls++;
    if (calls % consumers === 0) loading = undefined;
    return current;
  };
}
