/** Stored values of plain (not quantised) types, as float32. */
import { type ArrayOf, type DType, viewBytes } from "../tensor/array.ts";
import { bfloat16ToFloat32, float16ToFloat32 } from "../tensor/float16.ts";

/** float32 is used in place; float16 and bfloat16 are exact; wider types are rounded to the nearest float32. */
export function widen(dtype: DType, bytes: Uint8Array): Float32Array {
  const data: ArrayOf[DType] = viewBytes(dtype, bytes);
  if (data instanceof Float32Array) return data;
  if (dtype === "float16") return float16ToFloat32(data as Uint16Array);
  if (dtype === "bfloat16") return bfloat16ToFloat32(data as Uint16Array);
  return Float32Array.from(data as ArrayLike<number | bigint>, Number);
}
