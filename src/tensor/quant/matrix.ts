/**
 * The interface of matrices: each kind implements its own products. The kinds are `dense.ts` (float32), `blocks.ts` (4 or 8 bits in
 * blocks), `int8.ts` (8-bit arithmetic) and `tiled-int8.ts` (int8 in tiles, mapped from a file).
 */
import type { Value } from "../graph.ts";

/** A matrix [rows, columns]. Its data is loaded when the model is written. */
export abstract class Matrix {
  abstract readonly kind: "float32" | "blocks" | "int8" | "tiled-int8";
  /** Prefix of the names of its constants in a graph. */
  abstract readonly name: string;
  abstract readonly rows: number;
  abstract readonly columns: number;

  /** x [..., columns] times the transposed matrix -> [..., rows]. */
  abstract matmul(x: Value): Value;

  /** Rows by index: ids int64 [...] -> [...ids, columns]. */
  abstract gather(ids: Value): Value;

  /** The values as float32, row-major, dequantized if necessary. */
  abstract readFloat32(): Promise<Float32Array>;

  /** Concatenates the rows of this matrix and of `others`; undefined if they cannot be multiplied as one. */
  concat(_others: readonly Matrix[]): Matrix | undefined {
    return undefined;
  }

  /**
   * Combines the products of x [..., columns] with this matrix and with `others`, all of one size, by an elementwise function ->
   * [..., rows]. A kind may apply the function before it reorders the columns of the products.
   */
  combine(x: Value, others: readonly Matrix[], elementwise: (products: readonly Value[]) => Value): Value {
    return elementwise([this as Matrix, ...others].map((matrix) => matrix.matmul(x)));
  }

  /** The stored int8 data, with one scale per row; undefined for other kinds. */
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

/** @throws Error if x is not float32 [..., columns] */
export function checkInnerSize(x: Value, { name, rows, columns }: Pick<Matrix, "name" | "rows" | "columns">): void {
  if (x.dim(-1) === columns && x.dtype === "float32") return;
  throw new Error(
    `${x.graph.where()}matmul of ${x} with "${name}" [${rows}, ${columns}]: expected float32 [..., ${columns}]`,
  );
}

/**
 * Loads data once for several constants, and releases it after `consumers` calls: the graph lives longer than the writing of its model,
 * so the data would otherwise stay in memory twice.
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
