/**
 * Products with matrices in the blocks that a file stores: 16 or 32 elements of a row in 4 or 8 bits with a scale, perhaps a
 * minimum. They are used as they are; nothing is rounded a second time.
 */
import { bytesOf, type NdArray, ndarray } from "./array.ts";
import { single, type Value } from "./graph.ts";
import { concat, padZeros, reshape } from "./layout.ts";
import { gather } from "./lookup.ts";
import { type Int4Matrix, loadOnce, matmulNBits } from "./quantized.ts";
import { reduceSum } from "./reduce.ts";

export interface BlockFormat {
  readonly bits: 4 | 8;
  /** With minima an element is q * scale + minimum, without them (q - 8) * scale, or (q - 128) * scale in 8 bits. */
  readonly minima: boolean;
  /** Elements of a block. */
  readonly blockSize: 16 | 32;
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
  /** As a file has them: the name of their type there, and their bytes. */
  readonly stored?: { readonly type: string; read(): Promise<Uint8Array> };
}

/** Whether matrices of these formats can be one product. */
export function sameFormat(a: BlockFormat, b: BlockFormat): boolean {
  return a.bits === b.bits && a.minima === b.minima && a.blockSize === b.blockSize;
}

/** x [..., columns] times the transposed matrix [rows, columns] -> [..., rows], in 8-bit arithmetic. */
export function matmulBlocks(
  x: Value,
  name: string,
  size: { readonly rows: number; readonly columns: number },
  { format, load: loadBlocks }: BlockSource,
): Value {
  const { bits, minima, blockSize } = format;
  const { rows, columns } = size;
  if (columns % blockSize !== 0) {
    throw new Error(`${x.graph.where()}"${name}": rows of ${columns} elements are no whole blocks of ${blockSize}`);
  }
  if (!minima) {
    const load = async () => {
      const { quants, scales } = await loadBlocks();
      return { nibbles: bytes(quants), scales: floats(scales) };
    };
    return matmulNBits(x, { ...size, name, bits, blockSize, load });
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
  const { bits, minima, blockSize } = source.format;
  const blocks = columns / blockSize;
  const load = loadOnce(source.load, minima ? 3 : 2);
  const part = (key: keyof Blocks) => async () => {
    const data = (await load())[key];
    if (!data) throw new Error(`"${name}" has no ${key}`);
    return bytesOf(data);
  };
  const table = graph.weight(`${name}.int${bits}`, "uint8", [rows, (columns * bits) / 8], part("quants"));
  const inputs = [table, ids, graph.weight(`${name}.scales`, "float32", [rows, blocks], part("scales"))];
  if (minima) {
    const zeros = [rows, Math.ceil((blocks * bits) / 8)] as const;
    inputs.push(graph.weight(`${name}.zeroPoints`, "uint8", zeros, () => new Uint8Array(zeros[0] * zeros[1])));
  }
  const attributes = { bits, block_size: blockSize, gather_axis: 0, quantize_axis: 1 };
  const type = { dtype: "float32", shape: [...ids.shape, columns] } as const;
  const scaled = single(graph.node("GatherBlockQuantized", inputs, [type], { attributes, domain: "com.microsoft" }));
  if (!minima) return scaled;
  const least = gather(graph.weight(`${name}.minima`, "float32", [rows, blocks, 1], part("minima")), ids);
  return reshape(reshape(scaled, [...ids.shape, blocks, blockSize]).add(least), type.shape);
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
