/**
 * Products with matrices in the blocks that a file stores: 32 elements of a row in 4 or 8 bits with a scale, perhaps a
 * minimum. They are used as they are; nothing is rounded a second time.
 */
import { type NdArray, ndarray } from "./array.ts";
import type { Value } from "./graph.ts";
import { concat } from "./layout.ts";
import { matmul } from "./matrix.ts";
import { dequantizeInt4, type Int4Matrix, matmulNBits, quantizeInt4 } from "./quantized.ts";

/** Elements of a block. */
const blockSize = 32;

export interface BlockFormat {
  readonly bits: 4 | 8;
  /** With minima an element is q * scale + minimum, without them (q - 8) * scale, or (q - 128) * scale in 8 bits. */
  readonly minima: boolean;
}

/** Blocks of a matrix, row after row. */
export interface Blocks {
  /** Unsigned; of 4 bits two a byte, the first in the low half. */
  readonly quants: Uint8Array;
  /** One for each block. */
  readonly scales: Float32Array;
  /** One for each block, where the format has them. */
  readonly minima?: Float32Array;
}

/** Where blocks come from: their format is known at once, their data when the model is written. */
export interface BlockSource {
  readonly format: BlockFormat;
  load(): Promise<Blocks>;
}

/** x [..., columns] times the transposed matrix [rows, columns] -> [..., rows], in 8-bit arithmetic. */
export function matmulBlocks(
  x: Value,
  name: string,
  size: { readonly rows: number; readonly columns: number },
  source: BlockSource,
): Value {
  const { bits, minima } = source.format;
  if (!minima) {
    const load = async () => {
      const { quants, scales } = await source.load();
      return { nibbles: bytes(quants), scales: floats(scales) };
    };
    return matmulNBits(x, { ...size, name, bits, blockSize, load });
  }
  if (bits !== 4) throw new Error(`${x.graph.where()}"${name}": blocks with minima are read in 4 bits only`);
  const columns = size.columns + 2 * sumColumns(size.columns);
  const load = async () => foldMinima(await source.load(), size.rows, size.columns);
  return matmulNBits(withBlockSums(x), { name, rows: size.rows, columns, bits, blockSize, hasZeroPoints: true, load });
}

/** The rows of several matrices of one format and width, one after the other. */
export function stackBlocks(parts: readonly Blocks[]): Blocks {
  const floats = (arrays: readonly Float32Array[]) => join(new Float32Array(total(arrays)), 1, arrays);
  const quants = parts.map((part) => part.quants);
  const minima = parts.flatMap((part) => part.minima ?? []);
  return {
    quants: join(new Uint8Array(total(quants)), 1, quants),
    scales: floats(parts.map(({ scales }) => scales)),
    ...(minima.length > 0 ? { minima: floats(minima) } : {}),
  };
}

function total(arrays: readonly { readonly length: number }[]): number {
  return arrays.reduce((sum, { length }) => sum + length, 0);
}

/** Columns that hold the sums of a row's blocks: whole blocks themselves. */
function sumColumns(columns: number): number {
  return Math.ceil(columns / blockSize / blockSize) * blockSize;
}

/** x [..., columns] with the sums of its blocks behind it, twice. */
function withBlockSums(x: Value): Value {
  const columns = x.size(-1);
  const sums = sumColumns(columns);
  const ones = new Float32Array(columns * sums);
  for (let i = 0; i < columns; i++) ones[i * sums + Math.floor(i / blockSize)] = 1;
  const each = matmul(
    x,
    x.graph.shared(`blockSums.${columns}`, () => ndarray("float32", [columns, sums], ones)),
  );
  return concat([x, each, each], -1);
}

/**
 * The engine's zero points are whole numbers. With the nearest, z, an element is (q - z) scale + rest, and the rest of a
 * block, below half a scale, meets the sum of its block: it is a column more. Those columns are blocks of 4 bits too; a
 * second set holds what the first one rounds away.
 */
function foldMinima({ quants, scales, minima }: Blocks, rows: number, columns: number): Int4Matrix {
  if (!minima) throw new Error("These blocks should have minima");
  const blocks = columns / blockSize;
  const sums = sumColumns(columns);
  const zeros = new Uint8Array(rows * blocks);
  const rest = new Float32Array(rows * sums);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const i = row * blocks + block;
      const [scale, minimum] = [scales[i] as number, minima[i] as number];
      const zero = scale === 0 ? 0 : Math.max(0, Math.min(15, Math.round(-minimum / scale)));
      zeros[i] = zero;
      rest[row * sums + block] = minimum + zero * scale;
    }
  }
  const coarse = quantizeInt4(rest, rows, sums, blockSize);
  const rounded = dequantizeInt4(coarse);
  const fine = quantizeInt4(
    rest.map((value, i) => value - (rounded[i] as number)),
    rows,
    sums,
    blockSize,
  );
  const all = blocks + (2 * sums) / blockSize;
  const ofBlocks = (length: number) => new Uint8Array(rows * all * length);
  const parts = [quants, coarse.nibbles.data, fine.nibbles.data];
  const scaleParts = [scales, coarse.scales.data, fine.scales.data];
  const zeroParts = [zeros, unpackZeros(coarse), unpackZeros(fine)];
  return {
    rows,
    columns: columns + 2 * sums,
    blockSize,
    nibbles: bytes(join(ofBlocks(blockSize / 2), rows, parts)),
    scales: floats(join(new Float32Array(rows * all), rows, scaleParts)),
    zeroPoints: bytes(packRows(join(ofBlocks(1), rows, zeroParts), rows, all)),
  };
}

/** The zero points of a 4-bit matrix, one a byte. */
function unpackZeros({ rows, columns, zeroPoints }: Int4Matrix): Uint8Array {
  const blocks = columns / blockSize;
  const rowBytes = Math.ceil(blocks / 2);
  return Uint8Array.from({ length: rows * blocks }, (_, i) => {
    const block = i % blocks;
    const pair = zeroPoints.data[Math.floor(i / blocks) * rowBytes + (block >> 1)] as number;
    return (pair >> (4 * (block & 1))) & 15;
  });
}

/** Two a byte, rows padded to whole bytes. */
function packRows(values: Uint8Array, rows: number, width: number): Uint8Array {
  const rowBytes = Math.ceil(width / 2);
  const packed = new Uint8Array(rows * rowBytes);
  values.forEach((value, i) => {
    const at = Math.floor(i / width) * rowBytes + ((i % width) >> 1);
    packed[at] = (packed[at] as number) | (value << (4 * ((i % width) & 1)));
  });
  return packed;
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
