/**
 * Block-quantized matrices: 16 to 128 elements of a row, in 4 or 8 bits, share a scale and a zero point or a minimum. Blocks of a file are
 * multiplied in their stored form by the runtime's MatMulNBits, without requantization.
 */
import { bytesOf } from "../array.ts";
import { type FileRange, single, type Value } from "../graph.ts";
import { gather } from "../ops/gather.ts";
import { concat, padZeros, reshape } from "../ops/layout.ts";
import { reduceSum } from "../ops/reduce.ts";
import { checkInnerSize, loadOnce, Matrix } from "./matrix.ts";

/** Block sizes for quantization, in descending order. */
export const blockSizes = [128, 64, 32] as const;
/** Elements per block; 16 only in GGUF files. */
export type BlockSize = 16 | (typeof blockSizes)[number];

/** How the elements of a matrix are encoded. */
export interface BlockFormat {
  readonly bits: 4 | 8;
  /** If true, an element is q * scale + minimum; else (q - 8) * scale with 4 bits and (q - 128) * scale with 8 bits. */
  readonly minima: boolean;
  /** If true (only without minima), each block has its own zero point, and an element is (q - zero point) * scale. @default false */
  readonly zeroPoints?: boolean;
  readonly blockSize: BlockSize;
}

/** The data of a block-quantized matrix, row by row. A partial last block of a row is padded. */
export interface Blocks {
  /** Unsigned; with 4 bits two per byte, the first in the low nibble. */
  readonly quants: Uint8Array;
  /** One per block. */
  readonly scales: Float32Array;
  /** One per block, if the format has minima. */
  readonly minima?: Float32Array;
  /** One per block, if the format has zero points: packed as `quants`, with rows padded to whole bytes. */
  readonly zeroPoints?: Uint8Array;
}

/** File ranges with the same bytes as the data. */
type BlockRanges = { readonly [Part in "quants" | "scales" | "zeroPoints"]?: FileRange };

/** A stored block-quantized matrix [rows, columns]. */
export interface BlockSource {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly format: BlockFormat;
  load(): Promise<Blocks>;
  readonly ranges?: BlockRanges;
  /** The matrix in a GGUF block type: the stored bytes, or a conversion that rounds scales and minima to float16. */
  readonly gguf?: { readonly type: string; read(): Promise<Uint8Array> };
  /** The matrix that `gather` reads instead. */
  readonly table?: Matrix;
}

/** A matrix [rows, columns] in blocks of 4 or 8 bits. */
export class BlockMatrix extends Matrix {
  readonly kind = "blocks";
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly format: BlockFormat;
  readonly gguf: BlockSource["gguf"];
  private readonly source: BlockSource;

  constructor(source: BlockSource) {
    super();
    this.name = source.name;
    this.rows = source.rows;
    this.columns = source.columns;
    this.format = source.format;
    this.gguf = source.gguf;
    this.source = source;
  }

  /** Quantizes a matrix when the model is written. `gather` returns the unquantized rows. */
  static round(
    matrix: Matrix,
    { bits, blockSize }: { readonly bits: 4 | 8; readonly blockSize: BlockSize },
  ): BlockMatrix {
    const { name, rows, columns } = matrix;
    const format: BlockFormat = { bits, minima: false, zeroPoints: bits === 4, blockSize };
    const load = async () => quantizeBlocks(await matrix.readFloat32(), columns, format);
    return new BlockMatrix({ name, rows, columns, format, load, table: matrix });
  }

  load(): Promise<Blocks> {
    return this.source.load();
  }

  async readFloat32(): Promise<Float32Array> {
    return dequantizeBlocks(await this.load(), this.format, this.columns);
  }

  /** 8-bit arithmetic (accuracy level 4): activations are quantized to int8 per block. */
  matmul(x: Value): Value {
    checkInnerSize(x, this);
    const { rows, columns, format, source } = this;
    const { minima, bits, blockSize } = format;
    if (!minima) return matmulNBits(x, source);
    this.checkWholeBlocks(x);
    const sets = bits === 4 ? 2 : 1;
    return matmulNBits(withBlockSums(x, blockSize, sets), {
      ...source,
      columns: columns + sets * sumColumns(columns, blockSize),
      format: { bits, blockSize, minima: false, zeroPoints: true },
      load: async () => foldMinima(await source.load(), rows, columns, format),
      ranges: undefined,
    });
  }

  /** The exact float32 values of the rows. */
  gather(ids: Value): Value {
    const { table, ranges, load: read } = this.source;
    if (table) return table.gather(ids);
    this.checkWholeBlocks(ids);
    const { graph } = ids;
    const { rows, columns } = this;
    const name = `${this.name}.rows`;
    const { bits, minima, zeroPoints, blockSize } = this.format;
    const blocks = columns / blockSize;
    const load = loadOnce(read, minima || zeroPoints ? 3 : 2);
    const part = (key: keyof Blocks) => async () => bytesOf(requirePart(await load(), key, name));
    const quants = [rows, (columns * bits) / 8];
    const inputs = [
      graph.weight(`${name}.int${bits}`, "uint8", quants, part("quants"), ranges?.quants),
      ids,
      graph.weight(`${name}.scales`, "float32", [rows, blocks], part("scales"), ranges?.scales),
    ];
    if (minima || zeroPoints) {
      const rowBytes = Math.ceil((blocks * bits) / 8);
      const zeros = zeroPoints ? part("zeroPoints") : () => new Uint8Array(rows * rowBytes);
      inputs.push(graph.weight(`${name}.zeroPoints`, "uint8", [rows, rowBytes], zeros));
    }
    const attributes = { bits, block_size: blockSize, gather_axis: 0, quantize_axis: 1 };
    const type = { dtype: "float32", shape: [...ids.shape, columns] } as const;
    const scaled = single(graph.node("GatherBlockQuantized", inputs, [type], { attributes, domain: "com.microsoft" }));
    if (!minima) return scaled;
    const minimum = gather(graph.weight(`${name}.minima`, "float32", [rows, blocks, 1], part("minima")), ids);
    return reshape(reshape(scaled, [...ids.shape, blocks, blockSize]).add(minimum), type.shape);
  }

  /** Only matrices of the same format can be concatenated. */
  override concat(others: readonly Matrix[]): Matrix | undefined {
    const parts: readonly Matrix[] = [this, ...others];
    if (!parts.every((part) => part instanceof BlockMatrix && sameFormat(part.format, this.format))) return undefined;
    const blocks = parts as readonly BlockMatrix[];
    return new BlockMatrix({
      name: parts.map(({ name }) => name).join(","),
      rows: parts.reduce((sum, { rows }) => sum + rows, 0),
      columns: this.columns,
      format: this.format,
      async load() {
        const loaded: Blocks[] = [];
        for (const part of blocks) loaded.push(await part.load());
        return concatBlocks(loaded);
      },
      ranges: concatRanges(blocks.map(({ source }) => source.ranges ?? {})),
    });
  }

  private checkWholeBlocks({ graph }: Value): void {
    const { name, columns, format } = this;
    if (columns % format.blockSize === 0) return;
    throw new Error(
      `${graph.where()}"${name}": rows of ${columns} elements are not a multiple of the block size ${format.blockSize}`,
    );
  }
}

function sameFormat(a: BlockFormat, b: BlockFormat): boolean {
  const keys = ["bits", "minima", "blockSize"] as const;
  return keys.every((key) => a[key] === b[key]) && Boolean(a.zeroPoints) === Boolean(b.zeroPoints);
}

/** x [..., columns] times a transposed matrix without minima -> [..., rows]. */
function matmulNBits(x: Value, { name, rows, columns, format, load: read, ranges }: BlockSource): Value {
  const { graph } = x;
  const { bits, blockSize, zeroPoints } = format;
  const load = loadOnce(read, zeroPoints ? 3 : 2);
  const part = (key: keyof Blocks) => async () => bytesOf(requirePart(await load(), key, name));
  const blocks = Math.ceil(columns / blockSize);
  const quants = [rows, blocks, (blockSize * bits) / 8];
  const constants = [
    graph.weight(`${name}.int${bits}`, "uint8", quants, part("quants"), ranges?.quants),
    graph.weight(`${name}.scales`, "float32", [rows * blocks], part("scales"), ranges?.scales),
  ];
  if (zeroPoints) {
    const size = rows * Math.ceil((blocks * bits) / 8);
    constants.push(graph.weight(`${name}.zeroPoints`, "uint8", [size], part("zeroPoints"), ranges?.zeroPoints));
  }
  const type = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), rows] };
  const attributes = { K: columns, N: rows, bits, block_size: blockSize, accuracy_level: 4 };
  return single(graph.node("MatMulNBits", [x, ...constants], [type], { attributes, domain: "com.microsoft" }));
}

function requirePart(blocks: Blocks, key: keyof Blocks, name: string): Uint8Array | Float32Array {
  const data = blocks[key];
  if (!data) throw new Error(`Block-quantized matrix "${name}" has no ${key}`);
  return data;
}

/**
 * Quantizes a matrix to blocks, with scales and, with 4 bits, zero points.
 *
 * @param values row-major
 * @throws Error with 8 bits, if the row length is not a multiple of the block size
 */
export function quantizeBlocks(
  values: Float32Array,
  columns: number,
  { bits, blockSize }: Pick<BlockFormat, "bits" | "blockSize">,
): Blocks {
  if (bits === 4) return quantizeInt4(values, columns, blockSize);
  if (columns % blockSize !== 0) {
    throw new Error(
      `Rows of ${columns} elements are not a multiple of the 8-bit block size ${blockSize}; choose a smaller block size`,
    );
  }
  return quantizeInt8(values, blockSize);
}

/** The 4-bit levels of a block span its range, extended to contain zero. The last block of a row may be partial. */
function quantizeInt4(values: Float32Array, columns: number, blockSize: number): Blocks {
  const rows = values.length / columns;
  const blocks = Math.ceil(columns / blockSize);
  const quants = new Uint8Array((rows * blocks * blockSize) / 2);
  const scales = new Float32Array(rows * blocks);
  const zeroBytes = Math.ceil(blocks / 2);
  const zeroPoints = new Uint8Array(rows * zeroBytes);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const start = row * columns + block * blockSize;
      const end = Math.min(start + blockSize, (row + 1) * columns);
      let low = 0;
      let high = 0;
      for (let i = start; i < end; i++) {
        const value = values[i] as number;
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const scale = (high - low) / 15 || 1;
      const zero = Math.round(-low / scale);
      scales[row * blocks + block] = scale;
      const zeroAt = row * zeroBytes + (block >> 1);
      zeroPoints[zeroAt] = (zeroPoints[zeroAt] as number) | (zero << (4 * (block & 1)));
      let to = ((row * blocks + block) * blockSize) / 2;
      for (let i = start; i < end; i += 2) {
        const second = i + 1 < end ? (values[i + 1] as number) : 0;
        quants[to++] = nibble(values[i] as number, scale, zero) | (nibble(second, scale, zero) << 4);
      }
    }
  }
  return { quants, scales, zeroPoints };
}

function nibble(value: number, scale: number, zero: number): number {
  return Math.max(0, Math.min(15, Math.round(value / scale) + zero));
}

/** Symmetric 8 bits: the largest magnitude of each block becomes 127. */
function quantizeInt8(values: Float32Array, blockSize: number): Blocks {
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

/** Returns the float32 values, row-major. */
export function dequantizeBlocks(
  { quants, scales, minima, zeroPoints }: Blocks,
  { bits, blockSize }: Pick<BlockFormat, "bits" | "blockSize">,
  columns: number,
): Float32Array {
  const blocks = Math.ceil(columns / blockSize);
  const rows = scales.length / blocks;
  const levels = unpackRows(quants, blocks * blockSize, bits);
  const zeros = zeroPoints && unpackRows(zeroPoints, blocks, bits);
  const out = new Float32Array(rows * columns);
  for (let row = 0, to = 0; row < rows; row++) {
    for (let block = row * blocks; block < (row + 1) * blocks; block++) {
      const scale = scales[block] as number;
      const zero = zeros ? (zeros[block] as number) : minima ? 0 : 2 ** (bits - 1);
      // Adding -0, unlike 0, keeps the sign of a zero.
      const minimum = minima ? (minima[block] as number) : -0;
      const end = Math.min(to + blockSize, (row + 1) * columns);
      for (let from = block * blockSize; to < end; from++, to++) {
        out[to] = ((levels[from] as number) - zero) * scale + minimum;
      }
    }
  }
  return out;
}

/** Ranges of the concatenated matrices, for the parts that are contiguous in one file. */
function concatRanges(parts: readonly BlockRanges[]): BlockRanges {
  const join = (key: keyof BlockRanges) => joinRanges(parts.map((part) => part[key]));
  return { quants: join("quants"), scales: join("scales"), zeroPoints: join("zeroPoints") };
}

/** Joins ranges that are contiguous in one file; undefined if they are not. */
function joinRanges([first, ...others]: readonly (FileRange | undefined)[]): FileRange | undefined {
  let whole = first;
  for (const piece of others) {
    if (!whole || piece?.path !== whole.path || piece.offset !== whole.offset + whole.length) return undefined;
    whole = { ...whole, length: whole.length + piece.length };
  }
  return whole;
}

/** Concatenates the rows of matrices of one format and width. */
export function concatBlocks(parts: readonly Blocks[]): Blocks {
  const quants = parts.map((part) => part.quants);
  const scales = parts.map((part) => part.scales);
  const minima = parts.flatMap((part) => part.minima ?? []);
  const zeroPoints = parts.flatMap((part) => part.zeroPoints ?? []);
  const floats = (arrays: readonly Float32Array[]) => join(new Float32Array(total(arrays)), 1, arrays);
  const bytes = (arrays: readonly Uint8Array[]) => join(new Uint8Array(total(arrays)), 1, arrays);
  return {
    quants: bytes(quants),
    scales: floats(scales),
    minima: minima.length > 0 ? floats(minima) : undefined,
    zeroPoints: zeroPoints.length > 0 ? bytes(zeroPoints) : undefined,
  };
}

function total(arrays: readonly { readonly length: number }[]): number {
  return arrays.reduce((sum, { length }) => sum + length, 0);
}

/** Number of columns for the sums of a row's blocks, rounded up to whole blocks. */
function sumColumns(columns: number, blockSize: number): number {
  return Math.ceil(columns / blockSize / blockSize) * blockSize;
}

/** Appends the sums of the blocks to x [..., columns], once or twice. */
function withBlockSums(x: Value, blockSize: number, sets: 1 | 2): Value {
  const columns = x.size(-1);
  const blocks = columns / blockSize;
  const sums = reduceSum(reshape(x, [...x.shape.slice(0, -1), blocks, blockSize]), [-1], { keep: false });
  const each = padZeros(sums, sums.rank - 1, 0, sumColumns(columns, blockSize) - blocks);
  return concat([x, ...Array<Value>(sets).fill(each)], -1);
}

/**
 * Converts minima to zero points, for an operand with the sums of its blocks appended (`withBlockSums`).
 *
 * The runtime's zero points are integers. With the nearest one, z, an element is (q - z) * scale + rest, where the rest is less than half a
 * scale and constant within a block. It is multiplied by the sum of the block, as one more column. These columns are quantized to blocks of
 * the same bits; with 4 bits, a second set of columns holds the rounding errors of the first.
 */
function foldMinima(
  { quants, scales, minima = new Float32Array(scales.length) }: Blocks,
  rows: number,
  columns: number,
  { bits, blockSize }: BlockFormat,
): Blocks {
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
  const sets = [roundWithRest(rest, bits, blockSize)];
  if (bits === 4) sets.push(roundWithRest(rest, bits, blockSize));
  const all = blocks + (sets.length * sums) / blockSize;
  const allocate = (bytesPerBlock: number) => new Uint8Array(rows * all * bytesPerBlock);
  const parts = [quants, ...sets.map(({ levels }) => packRows(levels, levels.length, bits))];
  const zeroParts = [zeros, ...sets.map((set) => set.zeros)];
  return {
    quants: join(allocate((blockSize * bits) / 8), rows, parts),
    scales: join(new Float32Array(rows * all), rows, [scales, ...sets.map((set) => set.scales)]),
    zeroPoints: packRows(join(allocate(1), rows, zeroParts), all, bits),
  };
}

/** Quantizes blocks to levels that span their ranges, extended to contain zero. Leaves the rounding errors in `values`. */
function roundWithRest(values: Float32Array, bits: 4 | 8, blockSize: number) {
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

/** Packs 4-bit numbers two per byte, the first in the low nibble, with rows padded to whole bytes. Returns 8-bit numbers unchanged. */
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

/** The inverse of `packRows`: one number per byte. */
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

/** Fills `target` with matrices of `rows` rows, concatenated along the columns. */
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
