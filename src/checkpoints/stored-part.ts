/** Matrices that a file stores in parts, and the parts themselves. */

import type { BlockSource } from "../tensor/blocks.ts";
import type { TileSource } from "../tensor/int8.ts";
import type { Checkpoint, TensorInfo } from "./format.ts";
import { quote } from "./quote.ts";

/** A matrix as it is put together of its parts. */
export interface StoredMatrix {
  readonly info: TensorInfo;
  /** Its tensors in the file. */
  readonly parts: readonly TensorInfo[];
  readFloat32(): Promise<Float32Array>;
  readonly blocks?: BlockSource;
  readonly int8Columns?: TileSource;
}

/** A part of a matrix. @throws Error naming file and matrix if it is missing, or of another type or shape */
export function partOf(
  { path, tensors }: Checkpoint,
  matrix: { readonly name: string; readonly form: string },
  part: string,
  type: string,
  shape: readonly number[],
): TensorInfo {
  const found = tensors.get(part);
  if (found?.storedType === type && `${found.shape}` === `${shape}`) return found;
  const there = found ? `is ${found.storedType} [${found.shape.join(", ")}]` : "is missing";
  throw new Error(
    `${path}, tensor ${quote(matrix.name)} in ${matrix.form}: its part ${quote(part)} ${there}, expected ${type} [${shape.join(", ")}]`,
  );
}
