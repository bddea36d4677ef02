/** Keys and values of the positions that a language model has read, kept outside of the engine and read in place. */

import { masked } from "../nn/attention.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";

/** Sizes of one layer's cache. */
export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Capacity grows by this many positions. */
const bucket = 64;

/** A cache for `batch` sequences of equal length. Keys lie as [heads, headDim, positions], values as [heads, positions, headDim]. */
export class KVCache {
  readonly batch: number;
  private readonly shape: CacheShape;
  private capacity = bucket;
  private used = 0;
  private keys: Float32Array[];
  private values: Float32Array[];

  constructor(shape: CacheShape, batch = 1) {
    this.shape = shape;
    this.batch = batch;
    this.keys = this.allocate();
    this.values = this.allocate();
  }

  /** Positions that are held. */
  get length(): number {
    return this.used;
  }

  /** The arrays that the engine reads: `keys.N`, `values.N`, and the mask of unused positions. */
  feeds(): Record<string, NdArray> {
    const { layers, kvHeads, headDim } = this.shape;
    const { batch, capacity } = this;
    const mask = new Float32Array(batch * capacity).fill(masked);
    for (let i = 0; i < batch; i++) mask.fill(0, i * capacity, i * capacity + this.used);
    const feeds: Record<string, NdArray> = { pastMask: ndarray("float32", [batch, capacity], mask) };
    for (let layer = 0; layer < layers; layer++) {
      feeds[`keys.${layer}`] = ndarray(
        "float32",
        [batch, kvHeads, headDim, capacity],
        this.keys[layer] as Float32Array,
      );
      feeds[`values.${layer}`] = ndarray(
        "float32",
        [batch, kvHeads, capacity, headDim],
        this.values[layer] as Float32Array,
      );
    }
    return feeds;
  }

  /** Appends what a run of the engine gave for `count` new positions. */
  append(outputs: Readonly<Record<string, NdArray>>, count: number): void {
    this.reserve(this.used + count);
    for (let layer = 0; layer < this.shape.layers; layer++) {
      const keys = outputs[`newKeys.${layer}`]?.data as Float32Array;
      const values = outputs[`newValues.${layer}`]?.data as Float32Array;
      this.writeKeys(this.keys[layer] as Float32Array, keys, count);
      this.writeValues(this.values[layer] as Float32Array, values, count);
    }
    this.used += count;
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    this.used = Math.min(this.used, length);
  }

  /** A cache whose sequence i is a copy of this one's sequence `order[i]`: for beams. */
  select(order: readonly number[]): KVCache {
    const copy = new KVCache(this.shape, order.length);
    copy.capacity = this.capacity;
    copy.used = this.used;
    copy.keys = this.keys.map((data) => pick(data, this.batch, order));
    copy.values = this.values.map((data) => pick(data, this.batch, order));
    return copy;
  }

  private allocate(): Float32Array[] {
    const { layers, kvHeads, headDim } = this.shape;
    return Array.from({ length: layers }, () => new Float32Array(this.batch * kvHeads * headDim * this.capacity));
  }

  private reserve(length: number): void {
    if (length <= this.capacity) return;
    const { keys, values, capacity: old, used } = this;
    const { headDim } = this.shape;
    this.capacity = Math.ceil(length / bucket) * bucket;
    this.keys = this.allocate();
    this.values = this.allocate();
    keys.forEach((data, layer) => {
      copyRows(data, old, this.keys[layer] as Float32Array, this.capacity, 0, used);
    });
    values.forEach((data, layer) => {
      copyRows(data, old * headDim, this.values[layer] as Float32Array, this.capacity * headDim, 0, used * headDim);
    });
  }

  private writeKeys(target: Float32Array, source: Float32Array, count: number): void {
    copyRows(source, count, target, this.capacity, this.used, count);
  }

  private writeValues(target: Float32Array, source: Float32Array, count: number): void {
    const { headDim } = this.shape;
    copyRows(source, count * headDim, target, this.capacity * headDim, this.used * headDim, count * headDim);
  }
}

/** Copies the first `count` elements of each row of `source` to `offset` in the same row of `target`. */
function copyRows(
  source: Float32Array,
  sourceStride: number,
  target: Float32Array,
  targetStride: number,
  offset: number,
  count: number,
): void {
  const rows = source.length / sourceStride;
  if (count === 1) {
    for (let row = 0; row < rows; row++) target[row * targetStride + offset] = source[row * sourceStride] as number;
    return;
  }
  for (let row = 0; row < rows; row++) {
    target.set(source.subarray(row * sourceStride, row * sourceStride + count), row * targetStride + offset);
  }
}

function pick(data: Float32Array, batch: number, order: readonly number[]): Float32Array {
  const size = data.length / batch;
  const out = new Float32Array(size * order.length);
  order.forEach((from, to) => {
    out.set(data.subarray(from * size, (from + 1) * size), to * size);
  });
  return out;
}
