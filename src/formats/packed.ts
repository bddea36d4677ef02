/** Weights packed into one byte array with an index, as small as possible without a loss of quality, for the web page. */

import { bytesOf, sizeOf, viewBytes } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";
import { BlockMatrix } from "../tensor/quant/blocks.ts";
import { denseMatrix, type WeightSource } from "../tensor/weight-source.ts";
import { type BlockType, blockLayouts, blockMatrix, blocksToFloat32, isBlockType, packBlocks } from "./gguf/blocks.ts";

/** Storage type of a packed tensor: values, or the quantized blocks of GGUF files. */
export type Packing = "float32" | "float16" | BlockType;
export const packings: readonly Packing[] = ["float32", "float16", ...(Object.keys(blockLayouts) as BlockType[])];

export interface PackedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly packing: Packing;
  /** Offset of its bytes. */
  readonly offset: number;
}

/** How far a tensor may be rounded. */
export type Rounding = "none" | "float16" | "blocks";

/** Alignment of tensors in bytes. */
export const alignment = 16;

/** Size of a packed tensor in bytes. */
export function packedBytes({ shape, packing }: Pick<PackedTensor, "shape" | "packing">): number {
  const size = sizeOf(shape);
  if (!isBlockType(packing)) return size * (packing === "float32" ? 4 : 2);
  const layout = blockLayouts[packing];
  return (size / layout.elements) * layout.bytes;
}

/** Packs a tensor. Quantized blocks are kept; values become float16 where that is exact or `rounding` allows it. */
export async function packTensor(
  source: WeightSource,
  name: string,
  rounding: Rounding,
): Promise<{ readonly packing: Packing; readonly bytes: Uint8Array }> {
  const shape = source.tensors.get(name)?.shape ?? [];
  const matrix = source.matrix(name);
  const gguf = matrix instanceof BlockMatrix ? matrix.gguf : undefined;
  if (gguf && isBlockType(gguf.type)) return { packing: gguf.type, bytes: await gguf.read() };
  const values = await source.readFloat32(name);
  if (rounding === "blocks" && shape.length === 2 && Number(shape[1]) % blockLayouts.Q4_1.elements === 0) {
    return { packing: "Q4_1", bytes: roundToBlocks(values) };
  }
  const halves = float32ToFloat16(values);
  const back = float16ToFloat32(halves);
  const isExact = back.every((value, i) => Object.is(value, values[i]));
  const isRoundable = rounding !== "none" && shape.length > 1 && back.every(Number.isFinite);
  if (isExact || isRoundable) return { packing: "float16", bytes: bytesOf(halves) };
  return { packing: "float32", bytes: bytesOf(values) };
}

/** Packed weights as a weight source. @param path name in messages @throws Error if a tensor ends after the bytes */
export function packedWeights(path: string, index: readonly PackedTensor[], bytes: Uint8Array): WeightSource {
  const tensors = new Map(index.map((tensor) => [tensor.name, tensor]));
  for (const { name, ...tensor } of index) {
    if (!(tensor.offset + packedBytes(tensor) <= bytes.length)) {
      throw new Error(
        `${path}: tensor "${name}" ends after the ${bytes.length} bytes of the file; export the model again`,
      );
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
      const { packing, bytes: own } = find(name);
      if (isBlockType(packing)) return blocksToFloat32(blockLayouts[packing], own);
      return packing === "float32" ? viewBytes("float32", own) : float16ToFloat32(viewBytes("float16", own));
    },
    matrix(name) {
      const { packing, shape, bytes: own } = find(name);
      if (!isBlockType(packing)) return denseMatrix(this, name);
      return blockMatrix({ name, shape, type: packing, read: async () => own });
    },
  };
}

/** Quantizes to Q4_1: each block to 16 levels between its smallest and its largest element. */
function roundToBlocks(values: Float32Array): Uint8Array {
  const { elements } = blockLayouts.Q4_1;
  const [scales, minima] = [new Float32Array(values.length / elements), new Float32Array(values.length / elements)];
  for (let block = 0; block < scales.length; block++) {
    const own = values.subarray(block * elements, (block + 1) * elements);
    const least = Math.min(...own);
    minima[block] = least;
    scales[block] = (Math.max(...own) - least) / 15;
  }
  // Elements are rounded with the stored scale and minimum, which are float16.
  const toHalf = (exact: Float32Array) => float16ToFloat32(float32ToFloat16(exact));
  const rounded = { scales: toHalf(scales), minima: toHalf(minima) };
  const levels = new Uint8Array(values.length);
  values.forEach((value, i) => {
    const block = Math.floor(i / elements);
    const steps = (value - (rounded.minima[block] as number)) / ((rounded.scales[block] as number) || 1);
    levels[i] = Math.max(0, Math.min(15, Math.round(steps)));
  });
  return packBlocks("Q4_1", { levels, ...rounded });
}
