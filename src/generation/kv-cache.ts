/** Keys and values of the positions that a language model has read, kept outside of the engine and read in place. */
import { masked } from "../nn/attention.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";

/** Sizes of one layer's cache. */
export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Capacity grows by this many positions, as attention reads all of it. */
const bucket = 64;
/** How many times as long as they have to be arrays are made that have grown once, as they will grow again. */
const headroom = 1.5;

/**
 * A cache of several sequences, each of its own length: keys and values lie as [sequences, heads, positions, headDim].
 */
export class KVCache {
  private readonly shape: CacheShape;
  private arrays: Arrays;
  private used: number[];

  constructor(shape: CacheShape, batch = 1) {
    this.shape = shape;
    this.arrays = new Arrays(shape, batch, bucket);
    this.used = new Array<number>(batch).fill(0);
  }

  /** How many sequences there are. */
  get batch(): number {
    return this.used.length;
  }

  /** Positions that are held of each sequence. */
  get lengths(): readonly number[] {
    return this.used;
  }

  /** Positions that are held of the longest sequence. */
  get length(): number {
    return Math.max(0, ...this.used);
  }

  /** Memory in bytes. */
  get bytes(): number {
    return this.arrays.bytes;
  }

  /** The arrays that the engine reads: `keys.N`, `values.N`, and the mask of unused positions. */
  feeds(): Record<string, NdArray> {
    const { layers, kvHeads, headDim } = this.shape;
    const { batch } = this;
    const { capacity, rowSize, keys, values } = this.arrays;
    const mask = new Float32Array(batch * capacity).fill(masked);
    this.used.forEach((length, row) => {
      mask.fill(0, row * capacity, row * capacity + length);
    });
    const feeds: Record<string, NdArray> = { pastMask: ndarray("float32", [batch, capacity], mask) };
    // The sequences come first, so those that are there are the beginning of the array.
    const held = (data: Float32Array | undefined) => (data as Float32Array).subarray(0, batch * rowSize);
    for (let layer = 0; layer < layers; layer++) {
      feeds[`keys.${layer}`] = ndarray("float32", [batch, kvHeads, capacity, headDim], held(keys[layer]));
      feeds[`values.${layer}`] = ndarray("float32", [batch, kvHeads, capacity, headDim], held(values[layer]));
    }
    return feeds;
  }

  /** Appends what a run of the engine gave for `count` new positions of each sequence. */
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
        for (const [read, held] of [
          [newKeys, keys],
          [newValues, values],
        ] as const) {
          copyRows(
            read.subarray(...part),
            count * headDim,
            held,
            capacity * headDim,
            offset * headDim,
            count * headDim,
          );
        }
      });
    }
    this.used = this.used.map((length) => length + count);
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    this.used = this.used.map((held) => Math.min(held, length));
  }

  /** A cache whose sequence i is a copy of this one's sequence `order[i]`, or of its first `length` positions. */
  select(order: readonly number[], length = Number.POSITIVE_INFINITY): KVCache {
    const copy = new KVCache(this.shape, 0);
    copy.reserve(Math.max(0, ...order.map((row) => Math.min(this.used[row] as number, length))), order.length);
    for (const row of order) copy.push(this, row, length);
    return copy;
  }

  /** Adds a copy of another cache's sequence, or of its first `length` positions, as the last one of this. */
  push(other: KVCache, row = 0, length = Number.POSITIVE_INFINITY): void {
    const count = Math.min(other.used[row] as number, length);
    this.reserve(Math.max(this.length, count), this.batch + 1);
    copySequence(other.arrays, row, this.arrays, this.batch, count);
    this.used.push(count);
  }

  /** As `remove`; what was taken out is a cache by itself, a copy only where other sequences share its arrays. */
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

  /** Takes a sequence out; the last one gets its number. */
  remove(row: number): void {
    const last = this.batch - 1;
    const length = this.used[last] as number;
    if (row !== last) copySequence(this.arrays, last, this.arrays, row, length);
    this.used[row] = length;
    this.used.pop();
    // Attention reads the whole capacity, also what only a long sequence needed that is gone.
    if (this.arrays.capacity > 2 * bucketsFor(this.length)) this.move(bucketsFor(this.length), this.arrays.room);
  }

  /** Room for twice as many sequences is made at a time, so that adding one by one copies each a few times only. */
  private reserve(length: number, batch: number): void {
    const { capacity, room } = this.arrays;
    if (length <= capacity && batch <= room) return;
    const sizes = [Math.max(capacity, bucketsFor(length)), batch > room ? Math.max(batch, 2 * room) : room] as const;
    if (!this.arrays.resize(...sizes, this.used)) this.move(...sizes);
  }

  private move(capacity: number, room: number): void {
    const arrays = new Arrays(this.shape, room, capacity, this.length > 0 ? headroom : 1);
    this.used.forEach((length, row) => {
      copySequence(this.arrays, row, arrays, row, length);
    });
    this.arrays = arrays;
  }
}

function bucketsFor(length: number): number {
  return Math.max(1, Math.ceil(length / bucket)) * bucket;
}

/**
 * Room for `room` sequences of `capacity` positions. Arrays may be longer than that, so that they can grow in place: new memory costs far
 * more than moving what is held.
 */
class Arrays {
  readonly shape: CacheShape;
  room: number;
  capacity: number;
  /** Of each layer. */
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
    const of = (data: Float32Array | undefined) => (data as Float32Array).subarray(row * rowSize, (row + 1) * rowSize);
    return { keys: of(this.keys[layer]), values: of(this.values[layer]), capacity };
  }

  /**
   * Makes capacity or room larger in place, where the arrays are long enough for it.
   * @param lengths of the sequences that are there
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
      // From the last head on: each moves to a later place, which nothing needs any more that is still to be moved.
      for (let head = lengths.length * kvHeads - 1; head > 0; head--) {
        const length = lengths[Math.floor(head / kvHeads)] as number;
        data.copyWithin(head * after, head * before, head * before + length * headDim);
      }
    }
    return true;
  }
}

/** Copies the first `count` positions of a sequence. */
function copySequence(source: Arrays, from: number, target: Arrays, to: number, count: number): void {
  const { layers, headDim } = source.shape;
  for (let layer = 0; layer < layers; layer++) {
    const [old, copy] = [source.row(layer, from), target.row(layer, to)];
    for (const kind of ["keys", "values"] as const) {
      copyRows(old[kind], old.capacity * headDim, copy[kind], copy.capacity * headDim, 0, count * headDim);
    }
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
  for (let row = 0; row < rows; row++) {
    target.set(source.subarray(row * sourceStride, row * sourceStride + count), row * targetStride + offset);
  }
}
