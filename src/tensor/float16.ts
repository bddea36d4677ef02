/** Conversions between float32 and the two 16-bit floating-point types, for which Node 20 has no typed arrays. */
import { type ArrayOf, type DType, viewBytes } from "./array.ts";

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

let float16Table: Float32Array | undefined;

function buildFloat16Table(): Float32Array {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  return table;
}

/** Converts IEEE binary16 bits to float32 values, exactly. */
export function float16ToFloat32(bits: Uint16Array, out: Float32Array = new Float32Array(bits.length)): Float32Array {
  float16Table ??= buildFloat16Table();
  const table = float16Table;
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i] as number] as number;
  return out;
}

/** Converts float32 values to IEEE binary16 bits, rounded to nearest even; values beyond the range become infinity. */
export function float32ToFloat16(values: Float32Array, out: Uint16Array = new Uint16Array(values.length)): Uint16Array {
  for (let i = 0; i < values.length; i++) out[i] = roundToFloat16(values[i] as number);
  return out;
}

function roundToFloat16(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds to 65536 or more
  if (magnitude < 0x38800000) {
    // Below the smallest normal number: count units of 2^-24.
    const units = Math.abs(value) * 2 ** 24;
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && floor & 1) ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** Converts bfloat16 bits to float32 values, exactly. */
export function bfloat16ToFloat32(bits: Uint16Array, out: Float32Array = new Float32Array(bits.length)): Float32Array {
  const view = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) view[i] = (bits[i] as number) << 16;
  return out;
}

/** Converts values of an unquantized type to float32: float32 is used in place, float16 and bfloat16 are exact; wider types are rounded to the nearest float32. */
export function widen(dtype: DType, bytes: Uint8Array): Float32Array {
  const data: ArrayOf[DType] = viewBytes(dtype, bytes);
  if (data instanceof Float32Array) return data;
  if (dtype === "float16") return float16ToFloat32(data as Uint16Array);
  if (dtype === "bfloat16") return bfloat16ToFloat32(data as Uint16Array);
  return Float32Array.from(data as ArrayLike<number | bigint>, Number);
}
