/** Products with 4-bit weights: blocks of a matrix' rows share a scale and a zero point (ONNX Runtime's MatMulNBits). */
import { bytesOf, type NdArray, ndarray } from "../array.ts";
import { type FileRange, single, type Value } from "../graph.ts";

/** A matrix [rows, columns] in 4 bits: element = (nibble - zeroPoint) * scale of its block. */
export interface Int4Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly blockSize: number;
  /** Two elements a byte, the first in the low half: uint8 [rows, blocks, blockSize / 2], blocks = ceil(columns / blockSize). */
  readonly nibbles: NdArray<"uint8">;
  /** float32 [rows * blocks]. */
  readonly scales: NdArray<"float32">;
  /** Two a byte, rows padded to whole bytes: uint8 [rows * ceil(blocks / 2)]. */
  readonly zeroPoints: NdArray<"uint8">;
}

/** Where a 4-bit matrix comes from: its size is known at once, its data when the model is written. */
export interface Int4Source {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly blockSize: number;
  load(): Promise<Int4Matrix>;
}

/** x [..., columns] times the transposed matrix -> [..., rows], in 8-bit arithmetic (accuracy level 4). */
export function matmulInt4(x: Value, source: Int4Source): Value {
  return matmulNBits(x, { ...source, bits: 4, hasZeroPoints: true });
}

/** As `Int4Source`, of either width; without zero points all of them are 8, or 128 in 8 bits. */
export interface NBitsSource {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly blockSize: number;
  readonly bits: 4 | 8;
  readonly hasZeroPoints?: boolean;
  load(): Promise<Pick<Int4Matrix, "nibbles" | "scales"> & Partial<Int4Matrix>>;
  /** Where the same bytes lie in files. */
  readonly stored?: Readonly<Partial<Record<"nibbles" | "scales" | "zeroPoints", FileRange | undefined>>>;
}

/** x [..., columns] times the transposed matrix -> [..., rows], in 8-bit arithmetic (accuracy level 4). */
export function matmulNBits(x: Value, source: NBitsSource): Value {
  const { name, rows, columns, blockSize, bits, hasZeroPoints, stored } = source;
  if (x.dim(-1) !== columns) {
    throw new Error(`${x.graph.where()}product of ${x} with "${name}" [${rows}, ${columns}]: the inner sizes differ`);
  }
  const load = loadOnce(source.load, hasZeroPoints ? 3 : 2);
  const part = (key: "nibbles" | "scales" | "zeroPoints") => async () => {
    const array = (await load())[key];
    if (!array) throw new Error(`"${name}" has no ${key}`);
    return bytesOf(array.data);
  };
  const { graph } = x;
  const blocks = Math.ceil(columns / blockSize);
  const constants = [
    graph.weight(
      `${name}.int${bits}`,
      "uint8",
      [rows, blocks, (blockSize * bits) / 8],
      part("nibbles"),
      stored?.nibbles,
    ),
    graph.weight(`${name}.scales`, "float32", [rows * blocks], part("scales"), stored?.scales),
  ];
  if (hasZeroPoints) {
    const rowBytes = Math.ceil((blocks * bits) / 8);
    const zeros = part("zeroPoints");
    constants.push(graph.weight(`${name}.zeroPoints`, "uint8", [rows * rowBytes], zeros, stored?.zeroPoints));
  }
  const type = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), rows] };
  const attributes = { K: columns, N: rows, bits, block_size: blockSize, accuracy_level: 4 };
  return single(graph.node("MatMulNBits", [x, ...constants], [type], { attributes, domain: "com.microsoft" }));
}

/**
 * Something that is read once for several takers. When all have it, it is forgotten: a graph outlives the writing of its
 * model, and what it holds would be in memory twice.
 */
export function loadOnce<T>(load: () => Promise<T>, takers: number): () => Promise<T> {
  let loading: Promise<T> | undefined;
  let taken = 0;
  return () => {
    loading ??= load();
    const current = loading;
    taken++;
    if (taken % takers === 0) loading = undefined;
    return current;
  };
}

/** Rounds a matrix to 4 bits; each block spans its own range, which always holds zero. The last block of a row may be partial. */
export function quantizeInt4(values: Float32Array, rows: number, columns: number, blockSize: number): Int4Matrix {
  const blocks = Math.ceil(columns / blockSize);
  const nibbles = new Uint8Array((rows * blocks * blockSize) / 2);
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
        nibbles[to++] = nibble(values[i] as number, scale, zero) | (nibble(second, scale, zero) << 4);
      }
    }
  }
  return {
    rows,
    columns,
    blockSize,
    nibbles: ndarray("uint8", [rows, blocks, blockSize / 2], nibbles),
    scales: ndarray("float32", [rows * blocks], scales),
    zeroPoints: ndarray("uint8", [rows * zeroBytes], zeroPoints),
  };
}

function nibble(value: number, scale: number, zero: number): number {
  return Math.max(0, Math.min(15, Math.round(value / scale) + zero));
}

/** The float32 values that a 4-bit matrix stands for, [rows, columns]. */
export function dequantizeInt4(matrix: Int4Matrix): Float32Array {
  const { rows, columns, blockSize, nibbles, scales, zeroPoints } = matrix;
  const blocks = Math.ceil(columns / blockSize);
  const zeroBytes = Math.ceil(blocks / 2);
  const values = new Float32Array(rows * columns);
  for (let i = 0; i < values.length; i++) {
    const row = Math.floor(i / columns);
    const column = i % columns;
    const block = Math.floor(column / blockSize);
    const zero = ((zeroPoints.data[row * zeroBytes + (block >> 1)] as number) >> (4 * (block & 1))) & 15;
    const at = row * blocks * blockSize + column;
    const bits = ((nibbles.data[at >> 1] as number) >> (4 * (at & 1))) & 15;
    values[i] = (bits - zero) * (scales.data[row * blocks + block] as number);
  }
  return values;
}
