/**
 * Features of many pictures in one file, written once and read row by row: what is frozen before the first trained layer
 * need not be computed again in each epoch. The file is safetensors: one float16 tensor `features` [count, ...shape].
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { openSafetensors } from "../checkpoints/safetensors.ts";
import { bytesOf, type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";

export interface FeatureRequest {
  /** Path of the file. */
  readonly path: string;
  /** All that the features depend on: encoder, preprocessing, pictures, views. Another key means another file content. */
  readonly key: string;
  readonly count: number;
  /** Shape of one row, for example [cells, width]. */
  readonly shape: readonly number[];
}

/** Rows of features on disk. */
export class FeatureStore {
  readonly shape: readonly number[];
  readonly count: number;
  private readonly file: FileHandle;
  private readonly start: number;

  private constructor(file: FileHandle, start: number, { count, shape }: FeatureRequest) {
    this.file = file;
    this.start = start;
    this.count = count;
    this.shape = shape;
  }

  /**
   * Opens the file if it holds what is asked for, or else computes all rows and writes it, beside first and then renamed.
   *
   * @param compute rows `first` to `first + n` (n as it likes, at least 1), each the flat values of one row
   */
  static async open(
    request: FeatureRequest,
    compute: (first: number) => Promise<Float32Array[]>,
    onProgress: (done: number) => void = () => {},
  ): Promise<FeatureStore> {
    if (!(await holds(request))) await write(request, compute, onProgress);
    const file = await open(request.path, "r");
    return new FeatureStore(file, headerOf(request).byteLength, request);
  }

  /** Reads row `index` into `out`, as float32. */
  async read(index: number, out: Float32Array): Promise<void> {
    if (index < 0 || index >= this.count) throw new RangeError(`Row ${index} of ${this.count} features`);
    const bits = new Uint16Array(sizeOf(this.shape));
    const bytes = bytesOf(bits);
    const { bytesRead } = await this.file.read(bytes, 0, bytes.byteLength, this.start + index * bytes.byteLength);
    if (bytesRead !== bytes.byteLength)
      throw new Error(`The feature file ends before row ${index}; delete it to compute it again`);
    float16ToFloat32(bits, out);
  }

  /** Several rows, [rows, ...shape]. */
  async readRows(rows: readonly number[]): Promise<NdArray<"float32">> {
    const size = sizeOf(this.shape);
    const data = new Float32Array(rows.length * size);
    await Promise.all(rows.map((row, i) => this.read(row, data.subarray(i * size, (i + 1) * size))));
    return ndarray("float32", [rows.length, ...this.shape], data);
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

/** A short name for everything in `parts`, in order. */
export function featureKey(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

async function holds({ path, key }: FeatureRequest): Promise<boolean> {
  try {
    const file = await openSafetensors(path);
    await file.close();
    return file.metadata.key === key;
  } catch {
    return false;
  }
}

async function write(
  request: FeatureRequest,
  compute: (first: number) => Promise<Float32Array[]>,
  onProgress: (done: number) => void,
): Promise<void> {
  const { path, count, shape } = request;
  await mkdir(dirname(path), { recursive: true });
  const partial = `${path}.${process.pid}.partial`;
  const file = await open(partial, "w");
  try {
    await file.write(headerOf(request));
    for (let done = 0; done < count; ) {
      for (const row of await compute(done)) {
        if (row.length !== sizeOf(shape))
          throw new Error(`Row ${done} has ${row.length} values, expected ${sizeOf(shape)}`);
        await file.write(bytesOf(float32ToFloat16(row)));
        done++;
      }
      onProgress(done);
    }
    await file.close();
    await rename(partial, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(partial, { force: true });
    throw error;
  }
}

function headerOf({ key, count, shape }: FeatureRequest): Uint8Array {
  const bytes = count * sizeOf(shape) * 2;
  const header = JSON.stringify({
    __metadata__: { key },
    features: { dtype: "F16", shape: [count, ...shape], data_offsets: [0, bytes] },
  });
  const text = new TextEncoder().encode(header.padEnd(Math.ceil(header.length / 8) * 8));
  const out = new Uint8Array(8 + text.byteLength);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.byteLength), true);
  out.set(text, 8);
  return out;
}
