/**
 * Element types of GGUF files. Quantised types store blocks: consecutive elements of a row that share scales
 * (layouts: ggml's `ggml-common.h`).
 */
import type { DType } from "../tensor/array.ts";
import { float16ToFloat32 } from "../tensor/float16.ts";
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

function blocks(name: string, blockElements: number, blockBytes: number, toFloat32?: GgmlType["toFloat32"]): GgmlType {
  return { name, blockElements, blockBytes, toFloat32 };
}

/** By their numbers in the file. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map([
  [0, plain("F32", 4, "float32")],
  [1, plain("F16", 2, "float16")],
  [2, blocks("Q4_0", 32, 18, dequantizeQ4_0)],
  [3, blocks("Q4_1", 32, 20, dequantizeQ4_1)],
  [6, blocks("Q5_0", 32, 22)],
  [7, blocks("Q5_1", 32, 24)],
  [8, blocks("Q8_0", 32, 34, dequantizeQ8_0)],
  [9, blocks("Q8_1", 32, 36)],
  [10, blocks("Q2_K", 256, 84)],
  [11, blocks("Q3_K", 256, 110)],
  [12, blocks("Q4_K", 256, 144)],
  [13, blocks("Q5_K", 256, 176)],
  [14, blocks("Q6_K", 256, 210)],
  [15, blocks("Q8_K", 256, 292)],
  [16, blocks("IQ2_XXS", 256, 66)],
  [17, blocks("IQ2_XS", 256, 74)],
  [18, blocks("IQ3_XXS", 256, 98)],
  [19, blocks("IQ1_S", 256, 50)],
  [20, blocks("IQ4_NL", 32, 18)],
  [21, blocks("IQ3_S", 256, 110)],
  [22, blocks("IQ2_S", 256, 82)],
  [23, blocks("IQ4_XS", 256, 136)],
  [24, plain("I8", 1, "int8")],
  [25, plain("I16", 2, "int16")],
  [26, plain("I32", 4, "int32")],
  [27, plain("I64", 8, "int64")],
  [28, plain("F64", 8, "float64")],
  [29, blocks("IQ1_M", 256, 56)],
  [30, plain("BF16", 2, "bfloat16")],
  [34, blocks("TQ1_0", 256, 54)],
  [35, blocks("TQ2_0", 256, 66)],
  [39, blocks("MXFP4", 32, 17)],
  [40, blocks("NVFP4", 64, 36)],
  [41, blocks("Q1_0", 128, 18)],
]);

/** The float16 numbers at `offset` (even) of each block. */
export function float16Column(bytes: Uint8Array, blockBytes: number, offset: number): Float32Array {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);
  const column = new Uint16Array(bytes.byteLength / blockBytes);
  for (let block = 0; block < column.length; block++)
    column[block] = words[(block * blockBytes + offset) >> 1] as number;
  return float16ToFloat32(column);
}

/** A block: scale d (float16), then 16 bytes with elements 0-15 in the low and 16-31 in the high halves; (q - 8) d. */
function dequantizeQ4_0(bytes: Uint8Array): Float32Array {
  const scales = float16Column(bytes, 18, 0);
  const out = new Float32Array(scales.length * 32);
  for (let block = 0, from = 2, to = 0; block < scales.length; block++, from += 18, to += 32) {
    const scale = scales[block] as number;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[from + i] as number;
      out[to + i] = ((pair & 15) - 8) * scale;
      out[to + i + 16] = ((pair >> 4) - 8) * scale;
    }
  }
  return out;
}

/** A block: scale d and minimum m (float16), then 16 bytes as in Q4_0; q d + m. */
function dequantizeQ4_1(bytes: Uint8Array): Float32Array {
  const scales = float16Column(bytes, 20, 0);
  const minima = float16Column(bytes, 20, 2);
  const out = new Float32Array(scales.length * 32);
  for (let block = 0, from = 4, to = 0; block < scales.length; block++, from += 20, to += 32) {
    const scale = scales[block] as number;
    const minimum = minima[block] as number;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[from + i] as number;
      out[to + i] = (pair & 15) * scale + minimum;
      out[to + i + 16] = (pair >> 4) * scale + minimum;
    }
  }
  return out;
}

/** A block: scale d (float16), then 32 signed bytes; q d. */
function dequantizeQ8_0(bytes: Uint8Array): Float32Array {
  const scales = float16Column(bytes, 34, 0);
  const out = new Float32Array(scales.length * 32);
  for (let block = 0, from = 2, to = 0; block < scales.length; block++, from += 34, to += 32) {
    const scale = scales[block] as number;
    for (let i = 0; i < 32; i++) out[to + i] = (((bytes[from + i] as number) << 24) >> 24) * scale;
  }
  return out;
}
