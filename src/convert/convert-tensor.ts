/** Converts one tensor of a checkpoint to another quantization, in strips so that it takes little memory. */

import { quote } from "../files/errors.ts";
import type { Checkpoint, TensorInfo } from "../formats/checkpoint.ts";
import { blockPartNames, chooseTileRows, tiledPartNames } from "../formats/quantized-safetensors.ts";
import { safetensorsType, type TensorSpec } from "../formats/safetensors.ts";
import type { TensorGroup } from "../formats/safetensors-writer.ts";
import { bytesOf, bytesPerElement, type DType, sizeOf } from "../tensor/array.ts";
import { float32ToFloat16, widen } from "../tensor/float16.ts";
import { type BlockSize, blockSizes, quantizeBlocks } from "../tensor/quant/blocks.ts";
import { quantizeRows } from "../tensor/quant/int8.ts";

/**
 * How a tensor is stored: as values, a matrix in int8 with a scale per row, or a matrix in blocks of 4 or 8 bits, whose rows
 * must be a multiple of the block size.
 */
export type StoredQuantization =
  | "float32"
  | "float16"
  | "tiled-int8"
  | { readonly bits: 4 | 8; readonly blockSize: BlockSize };

/** Elements in a strip. */
const stripSize = 2 ** 22;
const largestFloat16 = 65504;

/** The largest block size, at most `most`, that a tensor can be stored with; undefined if there is none. */
export function fitBlockSize(
  [rows = 0, columns = 0, ...others]: readonly number[],
  most: number,
): BlockSize | undefined {
  if (others.length > 0 || rows === 0 || columns === 0) return undefined;
  return blockSizes.find((size) => size <= most && columns % size === 0);
}

/** Converts a tensor to the tensors that store it, whose bytes are computed when they are written. */
export function convertTensor(checkpoint: Checkpoint, info: TensorInfo, quantization: StoredQuantization): TensorGroup {
  const { name, shape } = info;
  if (quantization === "float32" || quantization === "float16") {
    return { tensors: [{ name, dtype: quantization, shape }], load: () => floats(checkpoint, info, quantization) };
  }
  const [rows = 0, columns = 0] = shape;
  if (quantization === "tiled-int8") {
    if (shape.length !== 2) throw new Error(`${quote(name)} [${shape.join(", ")}] is not a matrix`);
    const parts = tiledPartNames(name);
    const tile = chooseTileRows(rows);
    const tensors: TensorSpec[] = [
      { name: parts.bytes, dtype: "int8", shape: [rows / tile, columns, tile] },
      { name: parts.scales, dtype: "float32", shape: [rows] },
    ];
    return { tensors, load: () => tiledInt8(checkpoint, info) };
  }
  const { bits, blockSize } = quantization;
  if (fitBlockSize(shape, blockSize) !== blockSize) {
    throw new Error(
      `${quote(name)} [${shape.join(", ")}] is not a matrix whose rows are a multiple of the block size ${blockSize}`,
    );
  }
  const blocks = columns / blockSize;
  const names = blockPartNames(name, bits);
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

/** Rounds values to float16. @throws Error naming the tensor if a value is too large */
export function toFloat16(checkpoint: Checkpoint, { name }: TensorInfo, values: Float32Array): Uint16Array {
  if (values.some((value) => Math.abs(value) > largestFloat16 && Number.isFinite(value))) {
    throw new Error(
      `${checkpoint.path}, tensor ${quote(name)}: has values above ${largestFloat16}, the largest float16; use float32`,
    );
  }
  return float32ToFloat16(values);
}

/** Streams the quants, then the scales and zero points, which are small and kept in memory. */
async function* int4(checkpoint: Checkpoint, info: TensorInfo, blockSize: BlockSize): AsyncGenerator<Uint8Array> {
  const [, columns = 0] = info.shape;
  const scales: Uint8Array[] = [];
  const zeroPoints: Uint8Array[] = [];
  for await (const values of strips(checkpoint, info, columns)) {
    const blocks = quantizeBlocks(checkFinite(checkpoint, info, values), columns, { bits: 4, blockSize });
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
    const blocks = quantizeBlocks(checkFinite(checkpoint, info, values), columns, { bits: 8, blockSize });
    yield blocks.quants;
    scales.push(bytesOf(blocks.scales));
  }
  yield* scales;
}

/** Streams the transposed tiles, then the scales, which are small and kept in memory. */
async function* tiledInt8(checkpoint: Checkpoint, info: TensorInfo): AsyncGenerator<Uint8Array> {
  const [rows = 0, columns = 0] = info.shape;
  const scales: Uint8Array[] = [];
  for await (const values of strips(checkpoint, info, columns * chooseTileRows(rows))) {
    const strip = checkFinite(checkpoint, info, values);
    const size = columns * chooseTileRows(rows);
    for (let start = 0; start < strip.length; start += size) {
      const tile = quantizeRows(strip.subarray(start, start + size), columns);
      yield bytesOf(tile.bytes);
      scales.push(bytesOf(tile.scales));
    }
  }
  yield* scales;
}

/** Checks that all values are finite; one that is not would destroy its whole block. */
function checkFinite(checkpoint: Checkpoint, { name }: TensorInfo, values: Float32Array): Float32Array {
  // A finite value times zero is zero. `every` would take as long as the rounding itself.
  let probe = 0;
  for (let i = 0; i < values.length; i++) probe += (values[i] as number) * 0;
  if (probe === 0) return values;
  throw new Error(
    `${checkpoint.path}, tensor ${quote(name)}: contains values that are infinite or NaN, so it cannot be quantized; the file is damaged`,
  );
}

/** Streams the values as float32, several whole rows of `columns` at a time. */
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

/** The dtype of a tensor that is stored as values; undefined for blocks. */
export function unquantizedType({ format }: Checkpoint, { storedType }: TensorInfo): DType | undefined {
  if (format === "gguf") return undefined;
  return format === "torch" ? (storedType as DType) : safetensorsType(storedType);
}
