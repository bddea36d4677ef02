/**
 * Matrices that safetensors files store in the blocks that products take (`tensor/blocks.ts`): of `NAME`, the quants
 * `NAME.int4` or `NAME.int8`, uint8 [rows, blocks, bytes of a block], `NAME.scales`, float32 [rows, blocks], and in 4 bits
 * `NAME.zero_points`, uint8 [rows, bytes], two a byte.
 */
import { viewBytes } from "../tensor/array.ts";
import { type BlockFormat, type BlockSize, type Blocks, elementsOf, unpackRows } from "../tensor/blocks.ts";
import type { Checkpoint, TensorInfo } from "./format.ts";
import { putTogether } from "./ggml-blocks.ts";
import { partOf, type StoredMatrix } from "./stored-part.ts";

/** Elements of a block, the largest first. */
export const blockSizes = [128, 64, 32] as const;

/** The names of a matrix' parts. */
export const partNames = (name: string, bits: 4 | 8) => ({
  quants: `${name}.int${bits}`,
  scales: `${name}.scales`,
  zeroPoints: `${name}.zero_points`,
});

/** The matrix whose quants a tensor is; undefined if it is none's. */
export function blockMatrix(checkpoint: Checkpoint, quants: TensorInfo): StoredMatrix | undefined {
  const [, name, digits] = /^(.+)\.int([48])$/.exec(quants.name) ?? [];
  if (name === undefined || quants.storedType !== "U8" || quants.shape.length !== 3) return undefined;
  const bits = digits === "4" ? 4 : 8;
  const [rows = 0, blocks = 0, bytes = 0] = quants.shape;
  const names = partNames(name, bits);
  const matrix = { name, form: `${bits}-bit blocks` };
  const found = (bytes * 8) / bits;
  const blockSize = blockSizes.find((size) => size === found);
  // Told as the part that it is: of another shape than blocks are.
  if (!blockSize) partOf(checkpoint, matrix, names.quants, "U8", [rows, blocks, (32 * bits) / 8]);
  const size = blockSize ?? 32;
  const format: BlockFormat = { bits, minima: false, zeroPoints: bits === 4, blockSize: size };
  const scales = partOf(checkpoint, matrix, names.scales, "F32", [rows, blocks]);
  const zeroPoints =
    bits === 4 ? partOf(checkpoint, matrix, names.zeroPoints, "U8", [rows, Math.ceil(blocks / 2)]) : undefined;
  const load = async (): Promise<Blocks> => ({
    quants: await checkpoint.readBytes(quants.name),
    scales: viewBytes("float32", await checkpoint.readBytes(scales.name)),
    ...(zeroPoints && { zeroPoints: await checkpoint.readBytes(zeroPoints.name) }),
  });
  const columns = blocks * size;
  const parts = [quants, scales, ...(zeroPoints ? [zeroPoints] : [])];
  const byteLength = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const type = bits === 4 ? "Q4_1" : "Q8_0";
  return {
    info: { name, storedType: `INT${bits}`, shape: [rows, columns], byteLength },
    parts,
    readFloat32: async () => elementsOf(await load(), format, columns),
    blocks: {
      format,
      load,
      stored: {
        quants: checkpoint.placeOf?.(quants.name),
        scales: checkpoint.placeOf?.(scales.name),
        zeroPoints: zeroPoints && checkpoint.placeOf?.(zeroPoints.name),
      },
      packed: { type, read: async () => toGgml(type, await load(), { ...format, columns }) },
    },
  };
}

/** Minima take the place of zero points: what is at level 0. A larger block becomes several with the same scale. */
function toGgml(
  type: "Q4_1" | "Q8_0",
  { quants, scales, zeroPoints }: Blocks,
  { bits, blockSize, columns }: { readonly bits: 4 | 8; readonly blockSize: BlockSize; readonly columns: number },
): Uint8Array {
  const levels = unpackRows(quants, columns, bits);
  const zeros = zeroPoints && unpackRows(zeroPoints, columns / blockSize, bits);
  const minima = zeros && scales.map((scale, block) => -(zeros[block] as number) * scale);
  const each = (values: Float32Array) => repeated(values, blockSize / 32);
  return putTogether(type, { levels, scales: each(scales), ...(minima && { minima: each(minima) }) });
}

function repeated(values: Float32Array, times: number): Float32Array {
  return Float32Array.from({ length: values.length * times }, (_, i) => values[Math.floor(i / times)] as number);
}
