/**
 * Weights in one stretch of bytes with an index beside it, as small as they can be without losing anything that matters:
 * what a page loads.
 */
import type { WeightSource } from "../nn/weights.ts";
import { bytesOf, sizeOf, viewBytes } from "../tensor/array.ts";
import { type BlockFormat, type Blocks, sameFormat } from "../tensor/blocks.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";

/** How the elements of a tensor are packed. Blocks are 32 elements of a row, in 4 or 8 bits. */
export const packings = ["float32", "float16", "blocks4", "blocks4-minima", "blocks8"] as const;
export type Packing = (typeof packings)[number];

export interface PackedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly packing: Packing;
  /** Where its bytes begin. */
  readonly offset: number;
}

/** What the rounding of a tensor is allowed to lose. */
export type Rounding = "none" | "float16" | "blocks";

const blockSize = 32;
/** Every tensor begins at a multiple of so many bytes. */
export const alignment = 16;

const formats: ReadonlyMap<Packing, BlockFormat> = new Map([
  ["blocks4", { bits: 4, minima: false, blockSize }],
  ["blocks4-minima", { bits: 4, minima: true, blockSize }],
  ["blocks8", { bits: 8, minima: false, blockSize }],
]);

/** Bytes that a tensor takes: of blocks first all elements, then all scales, then all minima, the latter in float16. */
export function packedBytes({ shape, packing }: Pick<PackedTensor, "shape" | "packing">): number {
  const size = sizeOf(shape);
  const format = formats.get(packing);
  if (!format) return size * (packing === "float32" ? 4 : 2);
  return (size * format.bits) / 8 + (size / blockSize) * (format.minima ? 4 : 2);
}

/** A tensor as it is packed. Blocks stay as the file has them, and so do values that float16 can express. */
export async function packTensor(
  source: WeightSource,
  name: string,
  rounding: Rounding,
): Promise<{ readonly packing: Packing; readonly bytes: Uint8Array }> {
  const shape = source.tensors.get(name)?.shape ?? [];
  const stored = source.blocks?.(name);
  const format = [...formats].find(([, own]) => stored && sameFormat(own, stored.format));
  if (stored && format) return { packing: format[0], bytes: packBlocks(await stored.load()) };
  const values = await source.readFloat32(name);
  if (rounding === "blocks" && shape.length === 2 && Number(shape[1]) % blockSize === 0) {
    return { packing: "blocks4-minima", bytes: packBlocks(roundToBlocks(values)) };
  }
  const halves = float32ToFloat16(values);
  const back = float16ToFloat32(halves);
  const isExact = back.every((value, i) => Object.is(value, values[i]));
  const isRoundable = rounding !== "none" && shape.length > 1 && back.every(Number.isFinite);
  if (isExact || isRoundable) return { packing: "float16", bytes: bytesOf(halves) };
  return { packing: "float32", bytes: bytesOf(values) };
}

/** Packed weights as a source for a graph. @param path what messages call them @throws Error if the index does not fit the bytes */
export function packedWeights(path: string, index: readonly PackedTensor[], bytes: Uint8Array): WeightSource {
  const tensors = new Map(index.map((tensor) => [tensor.name, tensor]));
  for (const { name, ...tensor } of index) {
    if (!(tensor.offset + packedBytes(tensor) <= bytes.length)) {
      throw new Error(`${path}: tensor "${name}" lies behind the end of the ${bytes.length} bytes; export it again`);
    }
  }
  const find = (name: string) => {
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(`${path} has no tensor "${name}"`);
    return { ...tensor, bytes: bytes.subarray(tensor.offset, tensor.offset + packedBytes(tensor)) };
  };
  return {
    path,
    tensors,
    async readFloat32(name) {
      const { packing, shape, bytes: own } = find(name);
      const format = formats.get(packing);
      if (format) return unpackElements(unpackBlocks(own, sizeOf(shape), format), format);
      return packing === "float32" ? viewBytes("float32", own) : float16ToFloat32(viewBytes("float16", own));
    },
    blocks(name) {
      const { packing, shape, bytes: own } = find(name);
      const format = formats.get(packing);
      return format && { format, load: async () => unpackBlocks(own, sizeOf(shape), format) };
    },
  };
}

function packBlocks({ quants, scales, minima }: Blocks): Uint8Array {
  const parts = [quants, bytesOf(float32ToFloat16(scales)), ...(minima ? [bytesOf(float32ToFloat16(minima))] : [])];
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

function unpackBlocks(bytes: Uint8Array, size: number, { bits, minima }: BlockFormat): Blocks {
  const scalesAt = (size * bits) / 8;
  const columnBytes = (size / blockSize) * 2;
  const column = (from: number) => float16ToFloat32(viewBytes("float16", bytes.subarray(from, from + columnBytes)));
  const scales = column(scalesAt);
  return { quants: bytes.subarray(0, scalesAt), scales, ...(minima && { minima: column(scalesAt + columnBytes) }) };
}

/** The elements: q scale + minimum, or with the zero in the middle of the range where there are no minima. */
function unpackElements({ quants, scales, minima }: Blocks, { bits }: BlockFormat): Float32Array {
  const out = new Float32Array(scales.length * blockSize);
  for (let block = 0, to = 0; block < scales.length; block++) {
    const scale = scales[block] as number;
    const zero = minima ? 0 : 2 ** (bits - 1);
    const minimum = minima ? (minima[block] as number) : 0;
    for (const end = to + blockSize; to < end; to++) {
      const q = bits === 8 ? (quants[to] as number) : ((quants[to >> 1] as number) >> (4 * (to & 1))) & 15;
      out[to] = (q - zero) * scale + minimum;
    }
  }
  return out;
}

/** Rounds each block to 16 steps between its least and its largest element. */
function roundToBlocks(values: Float32Array): Blocks {
  const blocks = values.length / blockSize;
  const [scales, minima] = [new Float32Array(blocks), new Float32Array(blocks)];
  for (let block = 0; block < blocks; block++) {
    const own = values.subarray(block * blockSize, (block + 1) * blockSize);
    const least = Math.min(...own);
    minima[block] = least;
    scales[block] = (Math.max(...own) - least) / 15;
  }
  // Elements are rounded to the steps that will be there, whose scale and minimum have 16 bits themselves.
  const inHalf = (exact: Float32Array) => float16ToFloat32(float32ToFloat16(exact));
  const rounded = { scales: inHalf(scales), minima: inHalf(minima) };
  const quants = new Uint8Array(values.length / 2);
  values.forEach((value, i) => {
    const block = Math.floor(i / blockSize);
    const steps = (value - (rounded.minima[block] as number)) / ((rounded.scales[block] as number) || 1);
    const q = Math.max(0, Math.min(15, Math.round(steps)));
    quants[i >> 1] = (quants[i >> 1] as number) | (q << (4 * (i & 1)));
  });
  return { quants, ...rounded };
}
