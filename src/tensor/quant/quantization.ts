/**
 * How the matrices of a network are stored and multiplied: one vocabulary for code, flags, recipes and model folders, and the
 * policies that implement it.
 */
import { BlockMatrix, type BlockSize } from "./blocks.ts";
import { DenseMatrix } from "./dense.ts";
import { type ActivationBits, Int8Matrix } from "./int8.ts";
import type { Matrix } from "./matrix.ts";

/**
 * Quantizations by their names in flags, recipes and model folders:
 * - `native`: the stored quantization (blocks and int8), else float32
 * - `float32`
 * - `float16`: for storage only; computed in float32
 * - `int8`: 8-bit arithmetic, one scale per row and per token
 * - `int4`: 4-bit blocks
 *
 * @example
 * ```ts
 * import { quantizations } from "minigpt4";
 *
 * const name = "int8";
 * if (!quantizations.some((known) => known === name)) throw new Error(`Expected one of ${quantizations.join(", ")}`);
 * ```
 */
export const quantizations = ["native", "float32", "float16", "int8", "int4"] as const;
export type QuantizationName = (typeof quantizations)[number];

/** Block quantization. Without a block size, stored blocks are kept, and other matrices are quantized to blocks of 32. */
export interface BlockQuantization {
  readonly bits: 4 | 8;
  readonly blockSize?: BlockSize;
}

/** Quantization at run time. `"int4"` is short for `{ bits: 4 }`. */
export type Quantization = Exclude<QuantizationName, "float16"> | BlockQuantization;

/** Converts a stored matrix to the kind that a network multiplies with. */
export type QuantizationPolicy = (matrix: Matrix, name: string) => Matrix;

/** The matrices of a network that are quantized. */
export interface QuantizedMatrices {
  /** Whether a weight is quantized to blocks. */
  readonly inBlocks: (name: string) => boolean;
  /** Bits of the activations if a matrix is multiplied in int8; undefined if it stays in float32. */
  readonly activationBits: (name: string) => ActivationBits | undefined;
}

/** Keeps the stored kind of every matrix. */
export const native: QuantizationPolicy = (matrix) => matrix;

/** Converts every matrix to float32. */
export const float32: QuantizationPolicy = (matrix) => DenseMatrix.from(matrix);

/** Creates the policy of a network; matrices that are not quantized are in float32. */
export function quantizationPolicy(
  quantization: Quantization,
  { inBlocks, activationBits }: QuantizedMatrices,
): QuantizationPolicy {
  if (quantization === "native") return native;
  if (quantization === "float32") return float32;
  if (quantization === "int8") {
    return (matrix, name) => {
      const activations = activationBits(name);
      return activations ? new Int8Matrix(matrix, { activations }) : DenseMatrix.from(matrix);
    };
  }
  const { bits, blockSize } = quantization === "int4" ? { bits: 4 as const, blockSize: undefined } : quantization;
  return (matrix, name) => {
    if (!inBlocks(name)) return DenseMatrix.from(matrix);
    if (!blockSize && matrix.kind === "blocks") return matrix;
    return BlockMatrix.round(matrix, { bits, blockSize: blockSize ?? 32 });
  };
}

/** Names of earlier versions, in flags, recipes and model folders. */
export const oldQuantizations: Readonly<Record<string, QuantizationName>> = {
  stored: "native",
  "as stored": "native",
  fp16: "float16",
  fp32: "float32",
};

/**
 * Replaces the key `precision` of earlier versions by `quantization`, with the current name; `int4-128` becomes int4 with a `block_size`
 * of 128. Returns any other value unchanged.
 */
export function withCurrentQuantization(json: unknown): unknown {
  if (typeof json !== "object" || json === null || !("precision" in json) || "quantization" in json) return json;
  const { precision, ...others } = json;
  if (precision === "int4-128") return { ...others, quantization: "int4", block_size: 128 };
  return { ...others, quantization: oldQuantizations[String(precision)] ?? precision };
}
