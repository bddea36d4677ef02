/** Element types of GGUF files: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. */
import type { DType } from "../tensor/array.ts";
import { type BlockType, blockLayouts, blocksToFloat32 } from "./ggml-blocks.ts";
import { widen } from "./widen.ts";

export interface GgmlType {
  readonly name: string;
  /** Elements of a block; 1 for plain types. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** Float32 values of whole blocks; absent where this type is only listed, not read. */
  readonly toFloat32?: (bytes: Uint8Array) => Float32Array;
}

function plain(name: string, blockBytes: number, dtype: DType): GgmlType {
  return { name, blockElements: 1, blockBytes, toFloat32: (bytes) => widen(dtype, bytes) };
}

function blocks(name: BlockType): GgmlType {
  const layout = blockLayouts[name];
  const toFloat32 = (bytes: Uint8Array) => blocksToFloat32(layout, bytes);
  return { name, blockElements: layout.elements, blockBytes: layout.bytes, toFloat32 };
}

/** A type that is only listed. */
function listed(name: string, blockElements: number, blockBytes: number): GgmlType {
  return { name, blockElements, blockBytes };
}

/** By their numbers in the file. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map([
  [0, plain("F32", 4, "float32")],
  [1, plain("F16", 2, "float16")],
  [2, blocks("Q4_0")],
  [3, blocks("Q4_1")],
  [6, blocks("Q5_0")],
  [7, blocks("Q5_1")],
  [8, blocks("Q8_0")],
  [9, listed("Q8_1", 32, 36)],
  [10, blocks("Q2_K")],
  [11, blocks("Q3_K")],
  [12, blocks("Q4_K")],
  [13, blocks("Q5_K")],
  [14, blocks("Q6_K")],
  [15, listed("Q8_K", 256, 292)],
  [16, listed("IQ2_XXS", 256, 66)],
  [17, listed("IQ2_XS", 256, 74)],
  [18, listed("IQ3_XXS", 256, 98)],
  [19, listed("IQ1_S", 256, 50)],
  [20, listed("IQ4_NL", 32, 18)],
  [21, listed("IQ3_S", 256, 110)],
  [22, listed("IQ2_S", 256, 82)],
  [23, listed("IQ4_XS", 256, 136)],
  [24, plain("I8", 1, "int8")],
  [25, plain("I16", 2, "int16")],
  [26, plain("I32", 4, "int32")],
  [27, plain("I64", 8, "int64")],
  [28, plain("F64", 8, "float64")],
  [29, listed("IQ1_M", 256, 56)],
  [30, plain("BF16", 2, "bfloat16")],
  [34, listed("TQ1_0", 256, 54)],
  [35, listed("TQ2_0", 256, 66)],
  [39, listed("MXFP4", 32, 17)],
  [40, listed("NVFP4", 64, 36)],
  [41, listed("Q1_0", 128, 18)],
]);
