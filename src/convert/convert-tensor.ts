/** One tensor of a checkpoint in another quantization, made in strips so that little memory is needed. */

import { quote } from "../files/errors.ts";
import type { Checkpoint, TensorInfo } from "../formats/checkpoint.ts";
import { columnParts, partNames, tileOf } from "../formats/quantized-safetensors.ts";
import { safetensorsType, type TensorSpec } from "../formats/safetensors.ts";
import type { TensorGroup } from "../formats/safetensors-writer.ts";
import { bytesOf, bytesPerElement, type DType, sizeOf } from "../tensor/array.ts";
import { float32ToFloat16, widen } from "../tensor/float16.ts";
import { type BlockSize, blockSizes, quantizeBlocks } from "../tensor/quant/blocks.ts";
import { quantizeRows } from "../tensor/quant/int8.ts";

/**
 * How the values of a tensor are stored: in 4 or 8 bits in blocks, for matrices whose rows are whole blocks, or a matrix in
 * bytes with a scale for each row.
 */
export type StoredQuantization =
  | "float32"
  | "float16"
  | "tiled-int8"
  | { readonly bits: 4 | 8; readonly blockSize: BlockSize };

/** Elements of a strip. */
const stripSize = 2 ** 22;
const largestFloat16 = 65504;

/** The largest block of at most so many elements that a tensor can be stored in; undefined if there is none. */
export function fitBlockSize(
  [rows = 0, columns = 0, ...others]: readonly number[],
  most: number,
): BlockSize | undefined {
  if (others.length > 0 || rows === 0 || columns === 0) return undefined;
  return blockSizes.find((size) => size <= most && columns % size === 0);
}

/**
 * What is written of a tensor.
 * @param name its name in the new file
 */
export function convertedTensor(
  checkpoint: Checkpoint,
  info: TensorInfo,
  quantization: StoredQuantization,
  name = info.name,
): TensorGroup {
  const { shape } = info;
  if (quantization === "float32" || quantization === "float16") {
    return { tensors: [{ name, dtype: quantization, shape }], load: () => floats(checkpoint, info, quantization) };
  }
  const [rows = 0, columns = 0] = shape;
  if (quantization === "tiled-int8") {
    if (shape.length !== 2) throw new Error(`${quote(name)} [${shape.join(", ")}] is no matrix`);
    const parts = columnParts(name);
    const tile = tileOf(rows);
    const tensors: TensorSpec[] = [
      { name: parts.bytes, dtype: "int8", shape: [rows / tile, columns, tile] },
      { name: parts.scales, dtype: "float32", shape: [rows] },
    ];
    return { tensors, load: () => int8Columns(checkpoint, info) };
  }
  const { bits, blockSize } = quantization;
  if (fitBlockSize(shape, blockSize) !== blockSize) {
    throw new Error(`${quote(name)} [${shape.join(", ")}] is no matrix of whole blocks of ${blockSize}`);
  }
  const blocks = columns / blockSize;
  const names = partNames(name, bits);
  const tensors: TensorSpec[] = [
    { name: names.quants, dtype: "uint8", shape: [rows, blocks, (blockSize * bits) / 8] },
    { name: names.scales, dtype: "float32", shape: [rows, blocks] },
  ];
  if (bits === 4) tensors.push({ name: names.zeroPoints, dtype: "uint8", shape: [rows, Math.ceil(blocks / 2)] });
  return { tensors, load: () => (bits === 4 ? int4 : int8)(checkpoint, info, blockSize) };
}

async function* floats(
  checkpoint: Checkpoint,
  info: TensorInfo,
  quantization: "float32" | "float16",
): AsyncGenerator<Uint8Array> {
  if (unquantizedType(checkpoint, info) === quantization) {
    yield checkpoint.readBytes(info.name);
    return;
  }
  for await (const values of strips(checkpoint, info, 1)) {
    yield bytesOf(quantization === "float32" ? values : toFloat16(checkpoint, info, values));
  }
}

/** @throws Error naming the tensor if a value is too large */
export function toFloat16(checkpoint: Checkpoint, { name }: TensorInfo, values: Float32Array): Uint16Array {
  if (values.some((value) => Math.abs(value) > largestFloat16 && Number.isFinite(value))) {
    throw new Error(
      `${checkpoint.path}, tensor ${quote(name)}: has values beyond ${largestFloat16}, the largest of float16; use float32`,
    );
  }
  return float32ToFloat16(values);
}

/** Quants are given as they come; the scales and zero points, which are small, at the end. */
async function* int4(checkpoint: Checkpoint, info: TensorInfo, blockSize: BlockSize): AsyncGenerator<Uint8Array> {
  const [, columns = 0] = info.shape;
  const scales: Uint8Array[] = [];
  const zeroPoints: Uint8Array[] = [];
  for await (const values of strips(checkpoint, info, columns)) {
    const blocks = quantizeBlocks(finite(checkpoint, info, values), columns, { bits: 4, blockSize });
    yield blocks.quants;
    scales.push(bytesOf(blocks.scales));
    if (blocks.zeroPoints) zeroPoints.push(blocks.zeroPoints);
  }
  yield* scales;
  yield* zeroPoints;
}

async function* int8(checkpoint: Checkpoint, info: TensorInfo, blockSize: BlockSize): AsyncGenerator<Uint8Array> {
  const scales: Uint8Array[] = [];
  const [, columns = 0] = info.shape;
  for await (const values of strips(checkpoint, info, columns)) {
    const blocks = quantizeBlocks(finite(checkpoint, info, values), columns, { bits: 8, blockSize });
    yield blocks.quants;
    scales.push(bytesOf(blocks.scales));
  }
  yield* scales;
}

/** Each tile is transposed. The scales, which are small, come at the end. */
async function* int8Columns(checkpoint: Checkpoint, info: TensorInfo): AsyncGenerator<Uint8Array> {
  const [rows = 0, columns = 0] = info.shape;
  const scales: Uint8Array[] = [];
  for await (const values of strips(checkpoint, info, columns * tileOf(rows))) {
    const strip = finite(checkpoint, info, values);
    const size = columns * tileOf(rows);
    for (let start = 0; start < strip.length; start += size) {
      const tile = quantizeRows(strip.subarray(start, start + size), columns);
      yield bytesOf(tile.bytes);
      scales.push(bytesOf(tile.scales));
    }
  }
  yield* scales;
}

/** One value that is none makes a whole block meaningless. */
function finite(checkpoint: Checkpoint, { name }: TensorInfo, values: Float32Array): Float32Array {
  // Times zero, only what is infinite or no number is not zero; `every` takes as long as the rounding itself.
  let probe = 0;
  for (let i = 0; i < values.length; i++) probe += (values[i] as number) * 0;
  if (probe === 0) return values;
  throw new Error(
    `${checkpoint.path}, tensor ${quote(name)}: holds values that are infinite or no numbers, and cannot be rounded; the file is damaged`,
  );
}

/** The values in order, some whole rows of `columns` at a time. */
export async function* strips(
  checkpoint: Checkpoint,
  info: TensorInfo,
  columns: number,
): AsyncGenerator<Float32Array<ArrayBufferLike>> {
  const size = sizeOf(info.shape);
  const length = Math.max(1, Math.floor(stripSize / columns)) * columns;
  const type = unquantizedType(checkpoint, info);
  if (!type) {
    const values = await checkpoint.readFloat32(info.name);
    for (let start = 0; start < size; start += length) yield values.subarray(start, start + length);
    return;
  }
  const bytes = await checkpoint.readBytes(info.name);
  const width = bytesPerElement(type);
  for (let start = 0; start < size; start += length) {
    yield widen(type, bytes.subarray(start * width, (start + length) * width));
  }
}

/** The type of values that are stored one by one; undefined for blocks. */
export function unquantizedType({ format }: Checkpoint, { storedType }: TensorInfo): DType | undefined {
  if (format === "gguf") return undefined;
  return format === "torch" ? (storedType as DType) : safetensorsType(storedType);
}
