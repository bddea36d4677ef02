/**
 * Frozen matrices in 8-bit arithmetic, forward and backward: one scale per row of the matrix, and one per row (token) of the activations.
 * One scale for all tokens would lose most of them, because a few activations of a LLaMA are hundreds of times larger than the rest.
 */
import { bytesOf, concatFloat32, ndarray } from "../array.ts";
import { type CustomGradient, elementwise, type Graph, single, type Value } from "../graph.ts";
import { neg } from "../ops/elementwise.ts";
import { gather } from "../ops/gather.ts";
import { matmul } from "../ops/matmul.ts";
import { reduceMax, reduceMin } from "../ops/reduce.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { concatSource } from "./dense.ts";
import { checkInnerSize, type Int8Columns, Matrix } from "./matrix.ts";

/** Bits of the activations. 16 bits are the sum of two 8-bit numbers, in two products; they preserve small values next to outliers. */
export type ActivationBits = 8 | 16;

export interface Int8Options {
  /** Bits of the activations in the product; gradients have 8. @default 8 */
  readonly activations?: ActivationBits;
  /** Arithmetic of the gradient. Both need a second copy of the matrix. @default "int8" */
  readonly backward?: "int8" | "float32";
}

/** The matrix to quantize. The float32 values are read once for the product, unless it is stored as int8, and once for the gradient. */
type Int8Source = Pick<Matrix, "name" | "rows" | "columns" | "readFloat32"> & Partial<Pick<Matrix, "readInt8">>;

/** The right operand of a product, int8 [inner, outer]. */
interface Operand {
  readonly name: string;
  readonly inner: number;
  readonly outer: number;
  load(): Promise<Int8Columns>;
}

/** The uint8 value that represents zero. */
const zeroPoint = 128;
const largestActivation = 127;
/** Avoids a scale of zero for rows of zeros. */
const smallestMaximum = 1e-30;
/** Steps of the second 8-bit number per step of the first. The rounding error is at most half a step, so it uses the whole int8 range. */
const fineSteps = 2 * largestActivation;
/** Rows that are transposed together, so that writes are contiguous. */
const rowBlock = 64;

/** A frozen matrix [rows, columns] that is multiplied in int8. */
export class Int8Matrix extends Matrix {
  readonly kind = "int8";
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  private readonly source: Int8Source;
  private readonly options: Int8Options;

  constructor(source: Int8Source, options: Int8Options = {}) {
    super();
    this.name = source.name;
    this.rows = source.rows;
    this.columns = source.columns;
    this.source = source;
    this.options = options;
  }

  /** Differentiated as one function, straight through the rounding: dx = g times the matrix. */
  matmul(x: Value): Value {
    checkInnerSize(x, this);
    const { name, rows, columns, source } = this;
    const { backward = "int8", activations = 8 } = this.options;
    const inFloat32 = (g: Value) => matmul(g, this.dense(g.graph));
    const inInt8 = (g: Value) =>
      product(g, {
        name: `${name}.backward`,
        inner: rows,
        outer: columns,
        load: async () => quantizeColumns(await source.readFloat32(), columns, largestWeight()),
      });
    const load = async () => {
      const stored = await source.readInt8?.();
      return stored ? rescaleForCpu(stored) : quantizeRows(await source.readFloat32(), columns, largestWeight());
    };
    return product(
      x,
      { name, inner: columns, outer: rows, load },
      { activations, gradient: { inputs: [x], rule: (g) => [backward === "int8" ? inInt8(g) : inFloat32(g)] } },
    );
  }

  gather(ids: Value): Value {
    return gather(this.dense(ids.graph), ids);
  }

  readFloat32(): Promise<Float32Array> {
    return this.source.readFloat32();
  }

  override readInt8(): Promise<Int8Columns> | undefined {
    return this.source.readInt8?.();
  }

  override concat(others: readonly Matrix[]): Matrix | undefined {
    const { activations } = this.options;
    const parts: readonly Matrix[] = [this, ...others];
    if (!parts.every((part) => part instanceof Int8Matrix && part.options.activations === activations))
      return undefined;
    const source = concatSource(parts);
    return new Int8Matrix({ ...source, readInt8: () => concatInt8(parts) }, this.options);
  }

  private dense(graph: Graph): Value {
    const { name, rows, columns, source } = this;
    return graph.weight(name, "float32", [rows, columns], async () => bytesOf(await source.readFloat32()));
  }
}

/** Concatenates matrices that are stored as int8; undefined if one is not. */
function concatInt8(parts: readonly Matrix[]): Promise<Int8Columns> | undefined {
  const loading = parts.map((part) => part.readInt8());
  if (loading.some((part) => !part)) return undefined;
  return Promise.all(loading.flatMap((part) => part ?? [])).then((loaded) =>
    joinColumns(loaded, parts[0]?.columns ?? 0),
  );
}

/** x [..., inner] times [inner, outer] -> [..., outer]. The runtime's operator takes one scale of x only, so the row scales are applied after it. */
function product(
  x: Value,
  operand: Operand,
  { activations = 8, gradient }: { readonly activations?: ActivationBits; readonly gradient?: CustomGradient } = {},
): Value {
  const { graph } = x;
  const scales = rowScales(x);
  const zero = int8ZeroPoint(graph);
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
  return single(graph.node("Mul", [scaled, scales], [type], { gradient }));
}

/** The scale of each row of x, [..., 1]. */
export function rowScales(x: Value): Value {
  // Two reductions are faster than abs(x), which would write another tensor.
  const largest = elementwise("Max", reduceMax(x, [-1]), neg(reduceMin(x, [-1])));
  return elementwise("Max", largest, smallestMaximum).div(largestActivation);
}

/** The zero point, one constant per graph. */
export function int8ZeroPoint(graph: Graph): Value {
  return graph.shared("int8.zeroPoint", () =>
    graph.constant(ndarray("uint8", [], Uint8Array.of(zeroPoint)), "zeroPoint"),
  );
}

/** Quantizes rows [..., n] with scales [..., 1] to uint8 around the zero point. */
export class RowQuantizer {
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

/** The writer loads the bytes first. The scales, which are small, are kept from that until they are written. */
function constants({ graph }: Value, { name, inner, outer, load }: Operand): { bytes: Value; columnScales: Value } {
  let loadedScales: Float32Array | undefined;
  const loadBytes = async () => {
    const { bytes, scales } = await load();
    loadedScales = scales;
    return bytesOf(bytes);
  };
  return {
    bytes: graph.weight(`${name}.int8`, "int8", [inner, outer], loadBytes),
    columnScales: graph.weight(`${name}.scales`, "float32", [outer], async () =>
      bytesOf(loadedScales ?? (await load()).scales),
    ),
  };
}

/** Quantizes a matrix [rows, columns] with one scale per column, without transposing it. */
function quantizeColumns(values: Float32Array, columns: number, largest: number): Int8Columns {
  const maxima = new Float32Array(columns);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      const magnitude = Math.abs(values[start + column] as number);
      if (magnitude > (maxima[column] as number)) maxima[column] = magnitude;
    }
  }
  const { scales, factors } = computeScales(maxima, largest);
  const bytes = new Int8Array(values.length);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      bytes[start + column] = Math.round((values[start + column] as number) * (factors[column] as number));
    }
  }
  return { bytes, scales };
}

/** Quantizes a matrix [rows, columns] to int8 with one scale per row, transposed to [columns, rows]. @param largest magnitude of a byte */
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
  const { scales, factors } = computeScales(maxima, largest);
  const bytes = new Int8Array(values.length);
  for (let first = 0; first < rows; first += rowBlock) {
    const end = Math.min(first + rowBlock, rows);
    for (let column = 0; column < columns; column++) {
      for (let row = first; row < end; row++) {
        bytes[column * rows + row] = Math.round((values[row * columns + column] as number) * (factors[row] as number));
      }
    }
  }
  return { bytes, scales };
}

/** Concatenates matrices [inner, outer_i] along the columns. */
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

/** Returns the float32 values as [rows, columns], row-major. */
export function dequantizeColumns({ bytes, scales }: Int8Columns): Float32Array {
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

/** Rescales bytes to half of the range where the processor's sums of products would overflow. */
function rescaleForCpu({ bytes, scales }: Int8Columns): Int8Columns {
  const largest = largestWeight();
  if (largest === 127) return { bytes, scales };
  const factor = largest / 127;
  return { bytes: bytes.map((byte) => Math.round(byte * factor)), scales: scales.map((scale) => scale / factor) };
}

/** The largest magnitude of a weight on this processor. */
function largestWeight(): number {
  return largestInt8Weight(thisCpu());
}

/** `scales` convert bytes to values, `factors` convert values to bytes. */
function computeScales(maxima: Float32Array, largest: number): { scales: Float32Array; factors: Float32Array } {
  return {
    scales: maxima.map((maximum) => maximum / largest),
    factors: maxima.map((maximum) => (maximum > 0 ? largest / maximum : 0)),
  };
}
