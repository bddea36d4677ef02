/**
 * Products with frozen matrices in 8-bit arithmetic, forward and backward.
 *
 * Each row of the left operand (a token) has a scale of its own, and so has each row of the matrix. With one scale for
 * all tokens most of them would be lost: a few activations of a LLaMA are hundreds of times larger than the rest.
 */
import { bytesOf, ndarray } from "./array.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { neg } from "./elementwise.ts";
import { elementwise, type OwnGradient, single, type Value } from "./graph.ts";
import { matmul } from "./matrix.ts";
import { reduceMax, reduceMin } from "./reduce.ts";

/** Where a matrix [rows, columns] comes from: its size is known at once, its data when the model is written. */
export interface Int8Source {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** In float32. Asked for once for the product and, where there is a gradient, once for that. */
  load(): Promise<Float32Array>;
}

export interface Int8Options {
  /** The arithmetic of the gradient, which takes a second copy of the matrix: bytes, or float32. */
  readonly backward?: "int8" | "float32";
}

/** The right operand of a product [inner, outer]: element = byte * scale of its column. */
interface Int8Matrix {
  readonly bytes: Int8Array;
  /** [outer]. */
  readonly scales: Float32Array;
}

/** Where the right operand [inner, outer] comes from. */
interface Operand {
  readonly name: string;
  readonly inner: number;
  readonly outer: number;
  load(): Promise<Int8Matrix>;
}

/** Where bytes from 1 to 255 have their zero. */
const zeroPoint = 128;
const largestActivation = 127;
/** The scale of a row of zeros is not zero, so that nothing is divided by zero. */
const smallestMaximum = 1e-30;
const rowsAtOnce = 64;

/**
 * x [..., columns] float32 times the transposed matrix -> [..., rows].
 *
 * For `gradients` it is one operator: dx = g times the matrix, as if nothing had been rounded.
 */
export function matmulInt8(x: Value, source: Int8Source, { backward = "int8" }: Int8Options = {}): Value {
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
      load: async () => quantizeColumns(await source.load(), columns),
    });
  return product(
    x,
    { name, inner: columns, outer: rows, load: async () => quantizeRows(await source.load(), columns) },
    { inputs: [x], rule: (g) => [backward === "int8" ? inInt8(g) : inFloat32(g)] },
  );
}

/** x [..., inner] times [inner, outer] -> [..., outer]. The scales of the rows of x are outside of the engine's product, which knows one. */
function product(x: Value, operand: Operand, gradient?: OwnGradient): Value {
  const { graph } = x;
  // Two reductions read x twice; its magnitudes would have to be written too.
  const largest = elementwise("Max", reduceMax(x, [-1]), neg(reduceMin(x, [-1])));
  const scales = elementwise("Max", largest, smallestMaximum).div(largestActivation);
  const zero = graph.shared("zeroPoint", () => ndarray("uint8", [], Uint8Array.of(zeroPoint)));
  const { bytes, columnScales } = constants(x, operand);
  const inputs = [quantize(x, scales, zero), bytes, graph.scalar(1), columnScales, zero];
  const type = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), operand.outer] };
  const scaled = single(graph.node("MatMulIntegerToFloat", inputs, [type], { domain: "com.microsoft" }));
  return single(graph.node("Mul", [scaled, scales], [type], gradient ? { gradient } : {}));
}

/** x [..., n] in units of its rows' scales [..., 1], as bytes around the zero point. */
function quantize(x: Value, scales: Value, zero: Value): Value {
  const { graph } = x;
  const shape = single(graph.node("Shape", [scales], [{ dtype: "int64", shape: [scales.rank] }]));
  const zeros = single(graph.node("Expand", [zero, shape], [{ dtype: "uint8", shape: scales.shape }]));
  const attributes = { axis: x.rank - 1, block_size: x.size(-1) };
  return single(graph.node("QuantizeLinear", [x, scales, zeros], [{ dtype: "uint8", shape: x.shape }], { attributes }));
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
function quantizeColumns(values: Float32Array, columns: number): Int8Matrix {
  const maxima = new Float32Array(columns);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      const magnitude = Math.abs(values[start + column] as number);
      if (magnitude > (maxima[column] as number)) maxima[column] = magnitude;
    }
  }
  const { scales, factors } = scalesOf(maxima);
  const bytes = new Int8Array(values.length);
  for (let start = 0; start < values.length; start += columns) {
    for (let column = 0; column < columns; column++) {
      bytes[start + column] = Math.round((values[start + column] as number) * (factors[column] as number));
    }
  }
  return { bytes, scales };
}

/** A matrix [rows, columns] with a scale for each row, transposed to [columns, rows]. */
function quantizeRows(values: Float32Array, columns: number): Int8Matrix {
  const rows = values.length / columns;
  const maxima = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let largest = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      const magnitude = Math.abs(values[i] as number);
      if (magnitude > largest) largest = magnitude;
    }
    maxima[row] = largest;
  }
  const { scales, factors } = scalesOf(maxima);
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

/** What bytes are multiplied by to give values, and values to give bytes. */
function scalesOf(maxima: Float32Array): { scales: Float32Array; factors: Float32Array } {
  const largest = largestInt8Weight(thisCpu());
  return {
    scales: maxima.map((maximum) => maximum / largest),
    factors: maxima.map((maximum) => (maximum > 0 ? largest / maximum : 0)),
  };
}
