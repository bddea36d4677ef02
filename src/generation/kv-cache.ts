/** Keys and values of earlier positions, kept in memory outside the runtime, which reads them in place. */
import { masked } from "../nn/attention.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";

/** Sizes of one layer's cache. */
export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Capacity grows in steps of this many positions; attention reads all of it. */
const bucket = 64;
/** Arrays that have grown once will grow again, so they are allocated this many times as large as needed. */
const headroom = 1.5;

/** A KV cache of several sequences, each with its own length. Keys and values are [sequences, kvHeads, positions, headDim]. */
export class KVCache {
  private readonly shape: CacheShape;
  private arrays: Arrays;
  private used: number[];

  constructor(shape: CacheShape, batch = 1) {
    this.shape = shape;
    this.arrays = new Arrays(shape, batch, bucket);
    this.used = new Array<number>(batch).fill(0);
  }

  /** Number of sequences. */
  get batch(): number {
    return this.used.length;
  }

  /** Cached positions of each sequence. */
  get lengths(): readonly number[] {
    return this.used;
  }

  /** Cached positions of the longest sequence. */
  get length(): number {
    return Math.max(0, ...this.used);
  }

  /** Memory in bytes. */
  get bytes(): number {
    return this.arrays.bytes;
  }

  /** Inputs of the decoder graph: `keys.N`, `values.N`, and the mask of unused positions. */
  feeds(): Record<string, NdArray> {
    const { layers, kvHeads, headDim } = this.shape;
    const { batch } = this;
    const { capacity, rowSize, keys, values } = this.arrays;
    const mask = new Float32Array(batch * capacity).fill(masked);
    this.used.forEach((length, row) => {
      mask.fill(0, row * capacity, row * capacity + length);
    });
    const feeds: Record<string, NdArray> = { pastMask: ndarray("float32", [batch, capacity], mask) };
    // Sequences are the outermost dimension, so those in use are at the start of the array.
    const inUse = (data: Float32Array | undefined) => (data as Float32Array).subarray(0, batch * rowSize);
    for (let layer = 0; layer < layers; layer++) {
      feeds[`keys.${layer}`] = ndarray("float32", [batch, kvHeads, capacity, headDim], inUse(keys[layer]));
      feeds[`values.${layer}`] = ndarray("float32", [batch, kvHeads, capacity, headDim], inUse(values[layer]));
    }
    return feeds;
  }

  /** Appends the outputs `newKeys.N` and `newValues.N` of a forward pass over `count` new positions of each sequence. */
  append(outputs: Readonly<Record<string, NdArray>>, count: number): void {
    this.reserve(this.length + count, this.batch);
    const { layers, kvHeads, headDim } = this.shape;
    const size = kvHeads * headDim * count;
    for (let layer = 0; layer < layers; layer++) {
      const newKeys = outputs[`newKeys.${layer}`]?.data as Float32Array;
      const newValues = outputs[`newValues.${layer}`]?.data as Float32Array;
      this.used.forEach((offset, row) => {
        const part = [row * size, (row + 1) * size] as const;
        const { keys, values, capacity } = this.arrays.row(layer, row);
        for (const [added, target] of [
          [newKeys, keys],
          [newValues, values],
        ] as const) {
          copyRows({
            source: added.subarray(...part),
            sourceStride: count * headDim,
            target,
            targetStride: capacity * headDim,
            offset: offset * headDim,
            count: count * headDim,
          });
        }
      });
    }
    this.used = this.used.map((length) => length + count);
  }

  /** Drops all positions from `length` on. */
  truncate(length: number): void {
    this.used = this.used.map((used) => Math.min(used, length));
  }

  /** A new cache whose sequence i is a copy of sequence `order[i]`, or of its first `length` positions. */
  select(order: readonly number[], length = Number.POSITIVE_INFINITY): KVCache {
    const copy = new KVCache(this.shape, 0);
    copy.reserve(Math.max(0, ...order.map((row) => Math.min(this.used[row] as number, length))), order.length);
    for (const row of order) copy.push(this, row, length);
    return copy;
  }

  /** Appends a copy of another cache's sequence, or of its first `length` positions. */
  push(other: KVCache, row = 0, length = Number.POSITIVE_INFINITY): void {
    const count = Math.min(other.used[row] as number, length);
    this.reserve(Math.max(this.length, count), this.batch + 1);
    copySequence({ source: other.arrays, from: row, target: this.arrays, to: this.batch, count });
    this.used.push(count);
  }

  /** Removes a sequence like `remove` and returns it as a cache; it is copied only where other sequences share its arrays. */
  take(row: number): KVCache {
    const taken = new KVCache(this.shape, 0);
    if (this.arrays.room > 1) {
      taken.push(this, row);
      this.remove(row);
    } else {
      [taken.arrays, this.arrays] = [this.arrays, taken.arrays];
      [taken.used, this.used] = [this.used, taken.used];
    }
    return taken;
  }

  /** Removes a sequence; the last one takes its row. */
  remove(row: number): void {
    const last = this.batch - 1;
    const length = this.used[last] as number;
    if (row !== last) copySequence({ source: this.arrays, from: last, target: this.arrays, to: row, count: length });
    this.used[row] = length;
    this.used.pop();
    // Attention reads the whole capacity, so shrink it when the longest sequence is gone.
    if (this.arrays.capacity > 2 * bucketsFor(this.length)) this.move(bucketsFor(this.length), this.arrays.room);
  }

  /** Doubles the number of sequences when full, so that adding them one by one copies each only a few times. */
  private reserve(length: number, batch: number): void {
    const { capacity, room } = this.arrays;
    if (length <= capacity && batch <= room) return;
    const sizes = [Math.max(capacity, bucketsFor(length)), batch > room ? Math.max(batch, 2 * room) : room] as const;
    if (!this.arrays.resize(...sizes, this.used)) this.move(...sizes);
  }

  private move(capacity: number, room: number): void {
    const arrays = new Arrays(this.shape, room, capacity, this.length > 0 ? headroom : 1);
    this.used.forEach((length, row) => {
      copySequence({ source: this.arrays, from: row, target: arrays, to: row, count: length });
    });
    this.arrays = arrays;
  }
}

function bucketsFor(length: number): number {
  return Math.max(1, Math.ceil(length / bucket)) * bucket;
}

/**
 * Arrays for `room` sequences of `capacity` positions. They may be longer, to grow in place: allocating memory costs far
 * more than moving values.
 */
class Arrays {
  readonly shape: CacheShape;
  room: number;
  capacity: number;
  /** One array per layer. */
  readonly keys: readonly Float32Array[];
  readonly values: readonly Float32Array[];

  constructor(shape: CacheShape, room: number, capacity: number, headroom = 1) {
    this.shape = shape;
    this.room = room;
    this.capacity = capacity;
    const allocate = () =>
      Array.from({ length: shape.layers }, () => new Float32Array(Math.ceil(headroom * room * this.rowSize)));
    this.keys = allocate();
    this.values = allocate();
  }

  /** Elements of one sequence in one layer. */
  get rowSize(): number {
    return this.shape.kvHeads * this.shape.headDim * this.capacity;
  }

  get bytes(): number {
    return 2 * this.shape.layers * this.room * this.rowSize * Float32Array.BYTES_PER_ELEMENT;
  }

  row(layer: number, row: number) {
    const { rowSize, capacity } = this;
    const slice = (data: Float32Array | undefined) =>
      (data as Float32Array).subarray(row * rowSize, (row + 1) * rowSize);
    return { keys: slice(this.keys[layer]), values: slice(this.values[layer]), capacity };
  }

  /**
   * Grows in place.
   * @param lengths lengths of the sequences
   * @returns whether the arrays are long enough
   */
  resize(capacity: number, room: number, lengths: readonly number[]): boolean {
    const { kvHeads, headDim } = this.shape;
    const before = this.capacity * headDim;
    const after = capacity * headDim;
    if (room * kvHeads * after > (this.keys[0]?.length ?? 0)) return false;
    this.capacity = capacity;
    this.room = room;
    if (after === before) return true;
    for (const data of [...this.keys, ...this.values]) {
      // From the last head to the first: each moves back, over values that have already been moved.
      for (let head = lengths.length * kvHeads - 1; head > 0; head--) {
        const length = lengths[Math.floor(head / kvHeads)] as number;
        data.copyWithin(head * after, head * before, head * before + length * headDim);
      }
    }
    return true;
  }
}

interface SequenceCopy {
  readonly source: Arrays;
  readonly from: number;
  readonly target: Arrays;
  readonly to: number;
  readonly count: number;
}

/** Copies the first `count` positions of sequence `from` to sequence `to`. */
function copySequence({ source, from, target, to, count }: SequenceCopy): void {
  const { layers, headDim } = source.shape;
  for (let layer = 0; layer < layers; layer++) {
    const [old, copy] = [source.row(layer, from), target.row(layer, to)];
    for (const kind of ["keys", "values"] as const) {
      copyRows({
        source: old[kind],
        sourceStride: old.capacity * headDim,
        target: copy[kind],
        targetStride: copy.capacity * headDim,
        offset: 0,
        count: count * headDim,
      });
    }
  }
}

interface RowsCopy {
  readonly source: Float32Array;
  readonly sourceStride: number;
  readonly target: Float32Array;
  readonly targetStride: number;
  readonly offset: number;
  readonly count: number;
}

/** Copies the first `count` elements of each row of `source` to `offset` in the same row of `target`. */
function copyRows({ source, sourceStride, target, targetStride, offset, count }: RowsCopy): void {
  const rows = source.length / sourceStride;
  for (let row = 0; row < rows; row++) {
    target.set(source.subarray(row * sourceStride, row * sourceStride + count), row * targetStride + offset);
  }
}
