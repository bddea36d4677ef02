/**
 * Matrices that safetensors files store in the blocks that products take (`tensor/blocks.ts`): of `NAME`, the quants
 * `NAME.int4` or `NAME.int8`, uint8 [rows, blocks, bytes of a block], `NAME.scales`, float32 [rows, blocks], and in 4 bits
 * `NAME.zero_points`, uint8 [rows, bytes], two a byte.
 */
import { viewBytes } from "../tensor/array.ts";
import { type BlockFormat, type BlockSource, type Blocks, elementsOf, unpackRows } from "../tensor/blocks.ts";
import type { Checkpoint, TensorInfo } from "./format.ts";
import { putTogether } from "./ggml-blocks.ts";
import { quote } from "./quote.ts";

/** Elements of a block. */
export const blockSize = 32;

/** The names of a matrix' parts. */
export const partNames = (name: string, bits: 4 | 8) => ({
  quants: `${name}.int${bits}`,
  scales: `${name}.scales`,
  zeroPoints: `${name}.zero_points`,
});

interface StoredMatrix {
  readonly bits: 4 | 8;
  readonly parts: { readonly quants: TensorInfo; readonly scales: TensorInfo; readonly zeroPoints?: TensorInfo };
  readonly info: TensorInfo;
}

/**
 * A view of a checkpoint in which matrices in blocks are tensors under their own names; the checkpoint itself if it has none.
 * @throws Error naming file and matrix if a part of one is missing or of another size
 */
export function withStoredBlocks(checkpoint: Checkpoint): Checkpoint {
  const matrices = new Map<string, StoredMatrix>();
  const hidden = new Set<string>();
  for (const { name, storedType, shape } of checkpoint.tensors.values()) {
    const [, own, bits] = /^(.+)\.int([48])$/.exec(name) ?? [];
    if (own === undefined || storedType !== "U8" || shape.length !== 3) continue;
    const matrix = storedMatrix(checkpoint, own, bits === "4" ? 4 : 8);
    matrices.set(own, matrix);
    for (const part of Object.values(matrix.parts)) hidden.add(part.name);
  }
  if (matrices.size === 0) return checkpoint;
  const plain = [...checkpoint.tensors].filter(([name]) => !hidden.has(name));
  const tensors = new Map([...plain, ...[...matrices].map(([name, { info }]) => [name, info] as const)]);
  const { path, format, metadata } = checkpoint;
  return {
    path,
    format,
    metadata,
    tensors,
    async readFloat32(name) {
      const matrix = matrices.get(name);
      if (!matrix) return checkpoint.readFloat32(name);
      return elementsOf(await loadBlocks(checkpoint, matrix), formatOf(matrix), matrix.info.shape[1] ?? 0);
    },
    async readBytes(name) {
      const matrix = matrices.get(name);
      if (!matrix) return checkpoint.readBytes(name);
      const { quants, scales, zeroPoints } = matrix.parts;
      const names = [quants, scales, ...(zeroPoints ? [zeroPoints] : [])].map((part) => part.name);
      return Buffer.concat(await Promise.all(names.map((part) => checkpoint.readBytes(part))));
    },
    blocks(name): BlockSource | undefined {
      const matrix = matrices.get(name);
      if (!matrix) return checkpoint.blocks?.(name);
      const load = () => loadBlocks(checkpoint, matrix);
      const type = matrix.bits === 4 ? "Q4_1" : "Q8_0";
      const read = async () => toGgml(type, matrix, await load());
      return { format: formatOf(matrix), load, packed: { type, read } };
    },
    close: () => checkpoint.close(),
  };
}

function formatOf({ bits }: StoredMatrix): BlockFormat {
  return { bits, minima: false, zeroPoints: bits === 4, blockSize };
}

/** Minima take the place of zero points: what is at level 0. */
function toGgml(
  type: "Q4_1" | "Q8_0",
  { bits, info }: StoredMatrix,
  { quants, scales, zeroPoints }: Blocks,
): Uint8Array {
  const columns = info.shape[1] ?? 0;
  const levels = unpackRows(quants, columns, bits);
  const zeros = zeroPoints && unpackRows(zeroPoints, columns / blockSize, bits);
  const minima = zeros && scales.map((scale, block) => -(zeros[block] as number) * scale);
  return putTogether(type, { levels, scales, ...(minima && { minima }) });
}

async function loadBlocks(checkpoint: Checkpoint, { parts }: StoredMatrix): Promise<Blocks> {
  return {
    quants: await checkpoint.readBytes(parts.quants.name),
    scales: viewBytes("float32", await checkpoint.readBytes(parts.scales.name)),
    ...(parts.zeroPoints && { zeroPoints: await checkpoint.readBytes(parts.zeroPoints.name) }),
  };
}

function storedMatrix(checkpoint: Checkpoint, name: string, bits: 4 | 8): StoredMatrix {
  const names = partNames(name, bits);
  const { path, tensors } = checkpoint;
  const [rows = 0, blocks = 0] = tensors.get(names.quants)?.shape ?? [];
  const find = (part: string, type: string, shape: readonly number[]): TensorInfo => {
    const found = tensors.get(part);
    if (found?.storedType === type && `${found.shape}` === `${shape}`) return found;
    const there = found ? `is ${found.storedType} [${found.shape.join(", ")}]` : "is missing";
    throw new Error(
      `${path}, tensor ${quote(name)} in ${bits}-bit blocks: its part ${quote(part)} ${there}, expected ${type} [${shape.join(", ")}]`,
    );
  };
  const parts = {
    quants: find(names.quants, "U8", [rows, blocks, (blockSize * bits) / 8]),
    scales: find(names.scales, "F32", [rows, blocks]),
    ...(bits === 4 && { zeroPoints: find(names.zeroPoints, "U8", [rows, Math.ceil(blocks / 2)]) }),
  };
  const byteLength = Object.values(parts).reduce((sum, part) => sum + part.byteLength, 0);
  return { bits, parts, info: { name, storedType: `INT${bits}`, shape: [rows, blocks * blockSize], byteLength } };
}
