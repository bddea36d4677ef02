/** The interface of open weight files, shared by the readers of all formats. */

import { inFile, quote } from "../files/errors.ts";
import { RandomAccessFile } from "../files/file.ts";
import type { FileRange } from "../tensor/graph.ts";
import type { Matrix } from "../tensor/quant/matrix.ts";
import { denseMatrix } from "../tensor/weight-source.ts";

export interface TensorInfo {
  readonly name: string;
  /** The element type as the format names it: "F16", "BF16", "Q4_1", "float16". */
  readonly storedType: string;
  /** Row-major, outermost dimension first, in every format. */
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Where the file stores its bytes; undefined where they are compressed, reordered, or in parts. */
  readonly range?: FileRange;
}

/** An open weight file, or several shards. Tensors are read on demand, one at a time. */
export interface Checkpoint extends AsyncDisposable {
  readonly path: string;
  readonly format: "safetensors" | "torch" | "gguf";
  /** safetensors: `__metadata__`; GGUF: its keys and values; torch: entries of the file that are not tensors. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Values as float32, row-major. @throws Error naming file and tensor if it is missing or its type cannot be widened */
  readFloat32(name: string): Promise<Float32Array>;
  /** The stored bytes (quantized blocks unchanged), little endian, contiguous and row-major. */
  readBytes(name: string): Promise<Uint8Array>;
  /** The tensor as a matrix of the kind in which it is stored. @throws Error if there is no tensor of that name */
  matrix(name: string): Matrix;
  /** Closes the files. `await using` does the same at the end of a block. */
  close(): Promise<void>;
}

/** One tensor of one file. */
export interface StoredTensor {
  readonly info: TensorInfo;
  readBytes(): Promise<Uint8Array>;
  /** Where its bytes start, if the file stores them contiguous and uncompressed. */
  readonly offset?: number;
  /** @throws Error if values of this type cannot be widened */
  toFloat32(bytes: Uint8Array): Float32Array;
}

/** What the parser of a format returns. */
export interface Contents {
  readonly format: Checkpoint["format"];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: Iterable<StoredTensor>;
  /** Names that are not tensors, and why. */
  readonly refused?: ReadonlyMap<string, string>;
}

/** Opens and parses a file. All errors name it, including later ones of reading. */
export async function openFile(
  path: string,
  parse: (file: RandomAccessFile) => Promise<Contents>,
): Promise<Checkpoint> {
  return inFile(path, async () => {
    const file = await RandomAccessFile.open(path);
    try {
      return new FileCheckpoint(file, await parse(file));
    } catch (error) {
      await file.close();
      throw error;
    }
  });
}

class FileCheckpoint implements Checkpoint {
  readonly path: string;
  readonly format: Checkpoint["format"];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  private readonly file: RandomAccessFile;
  private readonly stored: ReadonlyMap<string, StoredTensor>;
  private readonly refused: ReadonlyMap<string, string>;

  constructor(file: RandomAccessFile, contents: Contents) {
    this.file = file;
    this.path = file.path;
    this.format = contents.format;
    this.metadata = contents.metadata;
    const stored = new Map<string, StoredTensor>();
    for (const tensor of contents.tensors) {
      const { name } = tensor.info;
      if (stored.has(name)) throw new Error(`has two tensors named ${quote(name)}`);
      stored.set(name, tensor);
    }
    this.stored = stored;
    this.tensors = new Map(
      [...stored].map(([name, { info, offset }]) => {
        const range = offset === undefined ? undefined : { path: file.path, offset, length: info.byteLength };
        return [name, range ? { ...info, range } : info];
      }),
    );
    this.refused = contents.refused ?? new Map();
  }

  readFloat32(name: string): Promise<Float32Array> {
    return this.inTensor(name, async (tensor) => tensor.toFloat32(await tensor.readBytes()));
  }

  readBytes(name: string): Promise<Uint8Array> {
    return this.inTensor(name, (tensor) => tensor.readBytes());
  }

  matrix(name: string): Matrix {
    return denseMatrix(this, name);
  }

  close(): Promise<void> {
    return this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private inTensor<T>(name: string, work: (tensor: StoredTensor) => Promise<T>): Promise<T> {
    return inFile(`${this.path}, tensor ${quote(name)}`, async () => {
      const tensor = this.stored.get(name);
      if (!tensor) throw new Error(this.refused.get(name) ?? "not in this file");
      return work(tensor);
    });
  }
}

/** PyTorch's limit. */
export const maxDimensions = 64;

/**
 * The number of elements of a shape that a file claims.
 *
 * @throws Error if a dimension is not a non-negative integer, or the product exceeds 2^53
 */
export function countElements(shape: readonly unknown[]): number {
  if (shape.length > maxDimensions) throw new Error(`a shape has ${shape.length} dimensions`);
  let count = 1;
  for (const dim of shape) {
    if (typeof dim !== "number" || !Number.isSafeInteger(dim) || dim < 0) {
      throw new Error("a shape has an impossible dimension");
    }
    count *= dim;
  }
  if (!Number.isSafeInteger(count)) throw new Error(`shape [${shape.join(", ")}] has too many elements`);
  return count;
}
