/**
 * Products with frozen matrices in 8-bit arithmetic, forward and backward.
 *
 * Each row of the left operand (a token) has a scale of its own, and so has each row of the matrix. With one scale for
 * all tokens most of them would be lost: a few activations of a LLaMA are hundreds of times larger than the rest.
 */
import { bytesOf, concatFloat32, ndarray } from "../array.ts";
import { elementwise, type FileRange, type Graph, type OwnGradient, single, type Value } from "../graph.ts";
import { neg } from "../ops/elementwise.ts";
import { reshape, transpose } from "../ops/layout.ts";
import { matmul } from "../ops/matmul.ts";
import { reduceMax, reduceMin } from "../ops/reduce.ts";
import { mulDims } from "../shapes.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { loadOnce } from "./int4.ts";

/** Where a matrix [rows, columns] comes from: its size is known at once, its data when the model is written. */
export interface Int8Source {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** In float32. Asked for once for the product, unless that is rounded already, and, where there is a gradient, once for that. */
  load(): Promise<Float32Array>;
  /** The matrix as it was rounded before. */
  rounded?(): Promise<Int8Columns>;
}

/**
 * A right operand [inner, outer] that was rounded before, cut into tiles of its columns which lie one after the other: [tiles, inner, tile].
 * What is multiplied where it lies in a file is read in this order. In rows of `outer` bytes, of which a processor's thread needs a few
 * columns at a time, it would be read in jumps, which takes two to three times as long.
 */
export interface TileSource {
  /** Columns of a tile, of which `outer` is a multiple. */
  readonly tile: number;
  /** Bytes in tiles; scales [outer]. */
  load(): Promise<Int8Columns>;
  /** Where bytes and scales lie in files. */
  readonly stored?: { readonly bytes?: FileRange | undefined; readonly scales?: FileRange | undefined };
}

/** A matrix in tiles. */
export interface TiledMatrix {
  readonly name: string;
  readonly rows: number;
  readonly tiles: TileSource;
}

/** Bits of the left operand: in 16 it is the sum of two in 8, which costs two products and keeps what outliers drown. */
export type ActivationBits = 8 | 16;

export interface Int8Options {
  /** In the product itself, 8 by default; the gradient always has 8. */
  readonly activations?: ActivationBits;
  /** The arithmetic of the gradient, which takes a second copy of the matrix: bytes, or float32. */
  readonly backward?: "int8" | "float32";
}

/** The right operand of a product [inner, outer]: element = byte * scale of its column. */
export interface Int8Columns {
  readonly bytes: Int8Array;
  /** [outer]. */
  readonly scales: Float32Array;
}

/** Where the right operand [inner, outer] comes from. */
interface Operand {
  readonly name: string;
  readonly inner: number;
  readonly outer: number;
  load(): Promise<Int8Columns>;
}

/** Where bytes from 1 to 255 have their zero. */
const zeroPoint = 128;
const largestActivation = 127;
/** The scale of a row of zeros is not zero, so that nothing is divided by zero. */
const smallestMaximum = 1e-30;
/** What rounding to a byte leaves is at most half a step: in these parts of a step it fills a byte of its own. */
const fineSteps = 2 * largestActivation;
const rowsAtOnce = 64;

/**
 * x [..., columns] float32 times the transposed matrix -> [..., rows].
 *
 * For `gradients` it is one operator: dx = g times the matrix, as if nothing had been rounded.
 */
export function matmulInt8(
  x: Value,
  source: Int8Source,
  { backward = "int8", activations = 8 }: Int8Options = {},
): Value {
  const { name, rows, columns } = source;
  const { graph } = x;
  if (x.dim(-1) !== columns || x.dtype !== "float32") {
    throw new Error(`${graph.where()}8-bit product of ${x} with "${name}" [${rows}, ${columns}]: they do not fit`);
  }
  const inFloat32 = (g: Value) =>
    matmul(
      g,
      graph.weight(name, "float32", [rows, columns], async () => bytesOf(await source.load())),
    );
  const inInt8 = (g: Value) =>
    product(g, {
      name: `${name}.backward`,
      inner: rows,
      outer: columns,
      load: async () => quantizeColumns(await source.load(), columns, largestHere()),
    });
  const load = async () =>
    source.rounded ? forThisCpu(await source.rounded()) : quantizeRows(await source.load(), columns, largestHere());
  return product(
    x,
    { name, inner: columns, outer: rows, load },
    { activations, gradient: { inputs: [x], rule: (g) => [backward === "int8" ? inInt8(g) : inFloat32(g)] } },
  );
}

/** x [..., inner] times [inner, outer] -> [..., outer]. The scales of the rows of x are outside of the engine's product, which knows one. */
function product(
  x: Value,
  operand: Operand,
  { activations = 8, gradient }: { readonly activations?: ActivationBits; readonly gradient?: OwnGradient } = {},
): Value {
  const { graph } = x;
  const scales = rowScales(x);
  const zero = zeroOf(graph);
  const { bytes, columnScales } = constants(x, operand);
  const type = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), operand.outer] };
  const times = (part: Value, unit: number) => {
    const inputs = [part, bytes, graph.scalar(unit), columnScales, zero];
    return single(graph.node("MatMulIntegerToFloat", inputs, [type], { domain: "com.microsoft" }));
  };
  const rows = new RowQuantizer(scales, zero);
  const coarse = rows.quantize(x, scales);
  let scaled = times(coarse, 1);
  if (activations === 16) {
    const rest = x.sub(rows.dequantize(coarse));
    scaled = scaled.add(times(rows.quantize(rest, scales.div(fineSteps)), 1 / fineSteps));
  }
  return single(graph.node("Mul", [scaled, scales], [type], gradient ? { gradient } : {}));
}

/** Whether bytes can be multiplied as they lie in tiles: not where their sums would overflow. */
export function takesTiles(): boolean {
  return largestHere() === 127;
}

/**
 * Products with matrices in tiles, which the engine does not pack in advance: for models that are mapped. `combine` makes one of them,
 * [tiles, ..., tile] each, whose columns are put side by side at last: x [..., columns] -> [..., rows]. There is no gradient.
 *
 * @param matrices of one number of rows and one tile
 * @param combine works on each element by itself
 */
export function tiledProducts(
  x: Value,
  matrices: readonly TiledMatrix[],
  combine: (products: readonly Value[]) => Value,
): Value {
  const [columns, outer] = [x.size(-1), matrices[0]?.rows ?? 0];
  const rows = x.shape.slice(0, -1).reduce((product, dim) => mulDims(product, dim), 1);
  const scales = rowScales(x);
  const quants = reshape(new RowQuantizer(scales, zeroOf(x.graph)).quantize(x, scales), [rows, columns]);
  const products = matrices.map((matrix) => productInTiles(quants, matrix).mul(reshape(scales, [rows, 1])));
  return reshape(transpose(combine(products), [1, 0, 2]), [...x.shape.slice(0, -1), outer]);
}

/** Bytes [rows, inner] times a matrix -> [tiles, rows, tile], without the scales of the rows. */
function productInTiles(quants: Value, { name, rows: outer, tiles: { tile, load, stored } }: TiledMatrix): Value {
  const { graph } = quants;
  const [rows, inner] = [quants.dim(0), quants.size(1)];
  const count = outer / tile;
  const loaded = loadOnce(load, 2);
  const inputs = [
    quants,
    graph.weight(
      `${name}.tiles`,
      "int8",
      [count, inner, tile],
      async () => bytesOf((await loaded()).bytes),
      stored?.bytes,
    ),
    graph.scalar(1),
    graph.weight(
      `${name}.tileScales`,
      "float32",
      [count, 1, tile],
      async () => bytesOf((await loaded()).scales),
      stored?.scales,
    ),
    zeroOf(graph),
  ];
  const type = { dtype: "float32", shape: [count, rows, tile] } as const;
  return single(graph.node("MatMulIntegerToFloat", inputs, [type], { domain: "com.microsoft" }));
}

/** What the bytes of each row are multiplied by, [..., 1]. */
function rowScales(x: Value): Value {
  // Two reductions read x twice; its magnitudes would have to be written too.
  const largest = elementwise("Max", reduceMax(x, [-1]), neg(reduceMin(x, [-1])));
  return elementwise("Max", largest, smallestMaximum).div(largestActivation);
}

function zeroOf(graph: Graph): Value {
  return graph.shared("zeroPoint", () => ndarray("uint8", [], Uint8Array.of(zeroPoint)));
}

/** Rows [..., n] with a scale each, [..., 1], as bytes around the zero point. */
class RowQuantizer {
  private readonly scales: Value;
  private readonly zeros: Value;

  constructor(scales: Value, zero: Value) {
    const { graph } = scales;
    const shape = single(graph.node("Shape", [scales], [{ dtype: "int64", shape: [scales.rank] }]));
    this.scales = scales;
    this.zeros = single(graph.node("Expand", [zero, shape], [{ dtype: "uint8", shape: scales.shape }]));
  }

  quantize(x: Value, scales: Value): Value {
    const inputs = [x, scales, this.zeros];
    const attributes = { axis: x.rank - 1, block_size: x.size(-1) };
    return single(x.graph.node("QuantizeLinear", inputs, [{ dtype: "uint8", shape: x.shape }], { attributes }));
  }

  dequantize(bytes: Value): Value {
    const inputs = [bytes, this.scales, this.zeros];
    const attributes = { axis: bytes.rank - 1, block_size: bytes.size(-1) };
    const type = { dtype: this.scales.dtype, shape: bytes.shape };
    return single(bytes.graph.node("DequantizeLinear", inputs, [type], { attributes }));
  }
}

/** The bytes come first in a model; by then the few scales are known too, and are kept until they are written. */
function constants({ graph }: Value, { name, inner, outer, load }: Operand): { bytes: Value; columnScales: Value } {
  let known: Float32Array | undefined;
  const loadBytes = async () => {
    const { bytes, scales } = await load();
    known = scales;
    return bytesOf(bytes);
  };
  return {
    bytes: graph.weight(`${name}.int8`, "int8", [inner, outer], loadBytes),
    columnScales: graph.weight(`${name}.scales`, "float32", [outer], async () =>
      bytesOf(known ?? (await load()).scales),
    ),
  };
}

/** A matrix [rows, columns] with a scale for each column, as it lies. */
function quantizeColumns(values: Float32Array, columns: number, largest: number): Int8Columns {
  const maxima = new Float32Array(columns);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      const magnitude = Math.abs(values[start + column] as number);
      if (magnitude > (maxima[column] as number)) maxima[column] = magnitude;
    }
  }
  const { scales, factors } = scalesOf(maxima, largest);
  const bytes = new Int8Array(values.length);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      bytes[start + column] = Math.round((values[start + column] as number) * (factors[column] as number));
    }
  }
  return { bytes, scales };
}

/** A matrix [rows, columns] with a scale for each row, transposed to [columns, rows]. @param largest magnitude of a byte */
export function quantizeRows(values: Float32Array, columns: number, largest = 127): Int8Columns {
  const rows = values.length / columns;
  const maxima = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let maximum = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      const magnitude = Math.abs(values[i] as number);
      if (magnitude > maximum) maximum = magnitude;
    }
    maxima[row] = maximum;
  }
  const { scales, factors } = scalesOf(maxima, largest);
  const bytes = new Int8Array(values.length);
  // Some rows at once, so that what is written lies side by side.
  for (let first = 0; first < rows; first += rowsAtOnce) {
    const end = Math.min(first + rowsAtOnce, rows);
    for (let column = 0; column < columns; column++) {
      for (let row = first; row < end; row++) {
        bytes[column * rows + row] = Math.round((values[row * columns + column] as number) * (factors[row] as number));
      }
    }
  }
  return { bytes, scales };
}

/** An operand in tiles as one without. */
export function joinTiles({ bytes, scales }: Int8Columns, inner: number, tile: number): Int8Columns {
  const size = inner * tile;
  const tiles = Array.from({ length: scales.length / tile }, (_, i) => ({
    bytes: bytes.subarray(i * size, (i + 1) * size),
    scales: scales.subarray(i * tile, (i + 1) * tile),
  }));
  return joinColumns(tiles, inner);
}

/** Matrices [inner, outer_i] of one height, side by side. */
export function joinColumns(parts: readonly Int8Columns[], inner: number): Int8Columns {
  const [only, ...others] = parts;
  if (only && others.length === 0) return only;
  const scales = concatFloat32(parts.map((part) => part.scales));
  const bytes = new Int8Array(inner * scales.length);
  let left = 0;
  for (const part of parts) {
    const outer = part.scales.length;
    for (let row = 0; row < inner; row++) {
      bytes.set(part.bytes.subarray(row * outer, (row + 1) * outer), row * scales.length + left);
    }
    left += outer;
  }
  return { bytes, scales };
}

/** The float32 values, transposed: [outer, inner]. */
export function valuesOfColumns({ bytes, scales }: Int8Columns): Float32Array {
  const outer = scales.length;
  const inner = bytes.length / outer;
  const values = new Float32Array(bytes.length);
  for (let row = 0; row < inner; row++) {
    for (let column = 0; column < outer; column++) {
      values[column * inner + row] = (bytes[row * outer + column] as number) * (scales[column] as number);
    }
  }
  return values;
}

/** Bytes of full range where the processor adds them without overflow, else of half of it. */
function forThisCpu({ bytes, scales }: Int8Columns): Int8Columns {
  const largest = largestHere();
  if (largest === 127) return { bytes, scales };
  const factor = largest / 127;
  return { bytes: bytes.map((byte) => Math.round(byte * factor)), scales: scales.map((scale) => scale / factor) };
}

function largestHere(): number {
  return largestInt8Weight(thisCpu());
}

/** What bytes are multiplied by to give values, and values to give bytes. */
function scalesOf(maxima: Float32Array, largest: number): { scales: Float32Array; factors: Float32Array } {
  return {
    scales: maxima.map((maximum) => maximum / largest),
    factors: maxima.map((maximum) => (maximum > 0 ? largest / maximum : 0)),
  };
}
