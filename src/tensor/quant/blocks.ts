/**
 * Products with matrices in the blocks that a file stores: 16 to 128 elements of a row in 4 or 8 bits with a scale, perhaps a
 * minimum. They are used as they are; nothing is rounded a second time.
 */
import { bytesOf, type NdArray, ndarray } from "../array.ts";
import { type FileRange, single, type Value } from "../graph.ts";
import { gather } from "../ops/gather.ts";
import { concat, padZeros, reshape } from "../ops/layout.ts";
import { reduceSum } from "../ops/reduce.ts";
import { type Int4Matrix, loadOnce, matmulNBits } from "./int4.ts";

/** Elements of a block. */
export type BlockSize = 16 | 32 | 64 | 128;

export interface BlockFormat {
  readonly bits: 4 | 8;
  /** With minima an element is q * scale + minimum, without them (q - 8) * scale, or (q - 128) * scale in 8 bits. */
  readonly minima: boolean;
  /** Without minima: each block has a zero point of its own, and an element is (q - zero point) * scale. */
  readonly zeroPoints?: boolean;
  readonly blockSize: BlockSize;
}

/** Blocks of a matrix, row after row. */
export interface Blocks {
  /** Unsigned; of 4 bits two a byte, the first in the low half. */
  readonly quants: Uint8Array;
  /** One for each block. */
  readonly scales: Float32Array;
  /** One for each block, where the format has them. */
  readonly minima?: Float32Array;
  /** One for each block, where the format has them: packed as quants are, the rows of the matrix padded to whole bytes. */
  readonly zeroPoints?: Uint8Array;
}

export type StoredBlocks = { readonly [Part in "quants" | "scales" | "zeroPoints"]?: FileRange | undefined };

/** Where blocks come from: their format is known at once, their data when the model is written. */
export interface BlockSource {
  readonly format: BlockFormat;
  load(): Promise<Blocks>;
  /** Where the same bytes lie in files. */
  readonly stored?: StoredBlocks | undefined;
  /** In a type of GGUF files: its name, and the bytes as the file has them, or with scales and minima rounded to 16 bits. */
  readonly packed?: { readonly type: string; read(): Promise<Uint8Array> };
}

/** Whether matrices of these formats can be one product. */
export function sameFormat(a: BlockFormat, b: BlockFormat): boolean {
  const keys = ["bits", "minima", "blockSize"] as const;
  return keys.every((key) => a[key] === b[key]) && Boolean(a.zeroPoints) === Boolean(b.zeroPoints);
}

/** x [..., columns] times the transposed matrix [rows, columns] -> [..., rows], in 8-bit arithmetic. */
export function matmulBlocks(
  x: Value,
  name: string,
  size: { readonly rows: number; readonly columns: number },
  { format, load: loadBlocks, stored: { quants: nibbles, ...others } = {} }: BlockSource,
): Value {
  const { bits, minima, blockSize, zeroPoints: hasZeroPoints = false } = format;
  const { rows, columns } = size;
  if (columns % blockSize !== 0) {
    throw new Error(`${x.graph.where()}"${name}": rows of ${columns} elements are no whole blocks of ${blockSize}`);
  }
  if (!minima) {
    const load = async () => {
      const { quants, scales, zeroPoints } = await loadBlocks();
      return { nibbles: bytes(quants), scales: floats(scales), ...(zeroPoints && { zeroPoints: bytes(zeroPoints) }) };
    };
    return matmulNBits(x, { ...size, name, bits, blockSize, hasZeroPoints, load, stored: { nibbles, ...others } });
  }
  const sets = bits === 4 ? 2 : 1;
  const load = async () => foldMinima(await loadBlocks(), rows, columns, format);
  return matmulNBits(withBlockSums(x, blockSize, sets), {
    name,
    rows,
    columns: columns + sets * sumColumns(columns, blockSize),
    bits,
    blockSize,
    hasZeroPoints: true,
    load,
  });
}

/** Rows of a table in blocks: ids of any shape -> [...ids, columns], the float32 values to the bit. */
export function gatherBlocks(
  ids: Value,
  name: string,
  { rows, columns }: { readonly rows: number; readonly columns: number },
  source: BlockSource,
): Value {
  const { graph } = ids;
  const { bits, minima, zeroPoints, blockSize } = source.format;
  const blocks = columns / blockSize;
  const load = loadOnce(source.load, minima || zeroPoints ? 3 : 2);
  const part = (key: keyof Blocks) => async () => {
    const data = (await load())[key];
    if (!data) throw new Error(`"${name}" has no ${key}`);
    return bytesOf(data);
  };
  const { stored } = source;
  const quants = part("quants");
  const table = graph.weight(`${name}.int${bits}`, "uint8", [rows, (columns * bits) / 8], quants, stored?.quants);
  const scales = graph.weight(`${name}.scales`, "float32", [rows, blocks], part("scales"), stored?.scales);
  const inputs = [table, ids, scales];
  if (minima || zeroPoints) {
    const rowBytes = Math.ceil((blocks * bits) / 8);
    const zeros = zeroPoints ? part("zeroPoints") : () => new Uint8Array(rows * rowBytes);
    inputs.push(graph.weight(`${name}.zeroPoints`, "uint8", [rows, rowBytes], zeros));
  }
  const attributes = { bits, block_size: blockSize, gather_axis: 0, quantize_axis: 1 };
  const type = { dtype: "float32", shape: [...ids.shape, columns] } as const;
  const scaled = single(graph.node("GatherBlockQuantized", inputs, [type], { attributes, domain: "com.microsoft" }));
  if (!minima) return scaled;
  const least = gather(graph.weight(`${name}.minima`, "float32", [rows, blocks, 1], part("minima")), ids);
  return reshape(reshape(scaled, [...ids.shape, blocks, blockSize]).add(least), type.shape);
}

/** The elements that the blocks of a matrix with so many columns stand for, row after row. */
export function elementsOf(
  { quants, scales, minima, zeroPoints }: Blocks,
  { bits, blockSize }: BlockFormat,
  columns: number,
): Float32Array {
  const levels = unpackRows(quants, columns, bits);
  const zeros = zeroPoints && unpackRows(zeroPoints, columns / blockSize, bits);
  const out = new Float32Array(levels.length);
  for (let block = 0, i = 0; block < scales.length; block++) {
    const scale = scales[block] as number;
    const zero = zeros ? (zeros[block] as number) : minima ? 0 : 2 ** (bits - 1);
    // Adding -0 changes nothing, not even the sign of a zero.
    const minimum = minima ? (minima[block] as number) : -0;
    for (const end = i + blockSize; i < end; i++) out[i] = ((levels[i] as number) - zero) * scale + minimum;
  }
  return out;
}

/** Rounds a matrix whose rows are whole blocks to 8 bits: the largest magnitude of each block becomes 127. */
export function roundToInt8Blocks(values: Float32Array, blockSize: BlockSize): Blocks {
  const scales = new Float32Array(values.length / blockSize);
  const quants = new Uint8Array(values.length);
  for (let block = 0; block < scales.length; block++) {
    const [start, end] = [block * blockSize, (block + 1) * blockSize];
    let largest = 0;
    for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(values[i] as number));
    scales[block] = largest / 127;
    const factor = largest > 0 ? 127 / largest : 0;
    for (let i = start; i < end; i++) quants[i] = 128 + Math.round((values[i] as number) * factor);
  }
  return { quants, scales };
}

/** Where the rows of several matrices lie one after the other, as `stackBlocks` gives them; what does not has no place. */
export function stackStored(parts: readonly (StoredBlocks | undefined)[]): StoredBlocks {
  const join = (key: keyof StoredBlocks) => joinStored(parts.map((part) => part?.[key]));
  return { quants: join("quants"), scales: join("scales"), zeroPoints: join("zeroPoints") };
}

/** Pieces that follow each other in one file. */
function joinStored([first, ...others]: readonly (FileRange | undefined)[]): FileRange | undefined {
  let whole = first;
  for (const piece of others) {
    if (!whole || piece?.path !== whole.path || piece.offset !== whole.offset + whole.length) return undefined;
    whole = { ...whole, length: whole.length + piece.length };
  }
  return whole;
}

/** The rows of several matrices of one format and width, one after the other. */
export function stackBlocks(parts: readonly Blocks[]): Blocks {
  const quants = parts.map((part) => part.quants);
  const scales = parts.map((part) => part.scales);
  const minima = parts.flatMap((part) => part.minima ?? []);
  const zeroPoints = parts.flatMap((part) => part.zeroPoints ?? []);
  const floats = (arrays: readonly Float32Array[]) => join(new Float32Array(total(arrays)), 1, arrays);
  const bytes = (arrays: readonly Uint8Array[]) => join(new Uint8Array(total(arrays)), 1, arrays);
  return {
    quants: bytes(quants),
    scales: floats(scales),
    ...(minima.length > 0 && { minima: floats(minima) }),
    ...(zeroPoints.length > 0 && { zeroPoints: bytes(zeroPoints) }),
  };
}

function total(arrays: readonly { readonly length: number }[]): number {
  return arrays.reduce((sum, { length }) => sum + length, 0);
}

/** Columns that hold the sums of a row's blocks: whole blocks themselves. */
function sumColumns(columns: number, blockSize: number): number {
  return Math.ceil(columns / blockSize / blockSize) * blockSize;
}

/** x [..., columns] with the sums of its blocks behind it, once or twice. */
function withBlockSums(x: Value, blockSize: number, sets: 1 | 2): Value {
  const columns = x.size(-1);
  const blocks = columns / blockSize;
  const sums = reduceSum(reshape(x, [...x.shape.slice(0, -1), blocks, blockSize]), [-1], { keep: false });
  const each = padZeros(sums, sums.rank - 1, 0, sumColumns(columns, blockSize) - blocks);
  return concat([x, ...Array<Value>(sets).fill(each)], -1);
}

/**
 * The engine's zero points are whole numbers. With the nearest, z, an element is (q - z) scale + rest, and the rest of a
 * block, below half a scale, meets the sum of its block: it is a column more. Those columns are blocks of as many bits; of
 * 4 bits there is a second set, which holds what the first one rounds away.
 */
function foldMinima(
  { quants, scales, minima }: Blocks,
  rows: number,
  columns: number,
  { bits, blockSize }: BlockFormat,
): Int4Matrix {
  if (!minima) throw new Error("These blocks should have minima");
  const blocks = columns / blockSize;
  const sums = sumColumns(columns, blockSize);
  const zeros = new Uint8Array(rows * blocks);
  const rest = new Float32Array(rows * sums);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const i = row * blocks + block;
      const [scale, minimum] = [scales[i] as number, minima[i] as number];
      const zero = scale === 0 ? 0 : Math.max(0, Math.min(2 ** bits - 1, Math.round(-minimum / scale)));
      zeros[i] = zero;
      rest[row * sums + block] = minimum + zero * scale;
    }
  }
  const sets = [roundToBlocks(rest, bits, blockSize)];
  if (bits === 4) sets.push(roundToBlocks(rest, bits, blockSize));
  const all = blocks + (sets.length * sums) / blockSize;
  const ofBlocks = (length: number) => new Uint8Array(rows * all * length);
  const parts = [quants, ...sets.map(({ levels }) => packRows(levels, levels.length, bits))];
  const zeroParts = [zeros, ...sets.map((set) => set.zeros)];
  return {
    rows,
    columns: columns + sets.length * sums,
    blockSize,
    nibbles: bytes(join(ofBlocks((blockSize * bits) / 8), rows, parts)),
    scales: floats(join(new Float32Array(rows * all), rows, [scales, ...sets.map((set) => set.scales)])),
    zeroPoints: bytes(packRows(join(ofBlocks(1), rows, zeroParts), all, bits)),
  };
}

/** Rounds blocks, each to steps of its own range, which always holds zero. What is rounded away stays in `values`. */
function roundToBlocks(values: Float32Array, bits: 4 | 8, blockSize: number) {
  const top = 2 ** bits - 1;
  const levels = new Uint8Array(values.length);
  const scales = new Float32Array(values.length / blockSize);
  const zeros = new Uint8Array(scales.length);
  for (let block = 0; block < scales.length; block++) {
    const [from, to] = [block * blockSize, (block + 1) * blockSize];
    const own = values.subarray(from, to);
    const [low, high] = [Math.min(0, ...own), Math.max(0, ...own)];
    scales[block] = (high - low) / top || 1;
    const scale = scales[block] as number;
    const zero = Math.round(-low / scale);
    zeros[block] = zero;
    for (let i = from; i < to; i++) {
      const level = Math.max(0, Math.min(top, Math.round((values[i] as number) / scale) + zero));
      levels[i] = level;
      values[i] = (values[i] as number) - (level - zero) * scale;
    }
  }
  return { levels, scales, zeros };
}

/** Numbers of 4 bits two a byte, rows padded to whole bytes; of 8 bits as they are. */
function packRows(values: Uint8Array, width: number, bits: 4 | 8): Uint8Array {
  if (bits === 8) return values;
  const rows = values.length / width;
  const rowBytes = Math.ceil(width / 2);
  const packed = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) {
      const at = row * rowBytes + (i >> 1);
      packed[at] = (packed[at] as number) | ((values[row * width + i] as number) << (4 * (i & 1)));
    }
  }
  return packed;
}

/** What `packRows` packed, one number a byte. */
export function unpackRows(packed: Uint8Array, width: number, bits: 4 | 8): Uint8Array {
  if (bits === 8) return packed;
  const rowBytes = Math.ceil(width / 2);
  const rows = packed.length / rowBytes;
  const values = new Uint8Array(rows * width);
  for (let row = 0, to = 0; row < rows; row++) {
    for (let i = 0; i < width; i++, to++) {
      values[to] = ((packed[row * rowBytes + (i >> 1)] as number) >> (4 * (i & 1))) & 15;
    }
  }
  return values;
}

/** Fills `target` with matrices of as many rows, side by side; with one row, one after the other. */
function join<T extends Uint8Array | Float32Array>(target: T, rows: number, parts: readonly T[]): T {
  const width = target.length / rows;
  let start = 0;
  for (const part of parts) {
    const own = part.length / rows;
    for (let row = 0; row < rows; row++) target.set(part.subarray(row * own, (row + 1) * own), row * width + start);
    start += own;
  }
  return target;
}

function bytes(data: Uint8Array): NdArray<"uint8"> {
  return ndarray("uint8", [data.length], data);
}

function floats(data: Float32Array): NdArray<"float32"> {
  return ndarray("float32", [data.length], data);
}
