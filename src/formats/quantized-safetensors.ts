/**
 * Quantized matrices in safetensors files. A matrix `NAME` [rows, columns] is stored as several tensors:
 * - blocks (`tensor/quant/blocks.ts`): `NAME.int4` or `NAME.int8`, uint8 [rows, blocks, bytes per block]; `NAME.scales`, float32
 *   [rows, blocks]; with 4 bits `NAME.zero_points`, uint8 [rows, bytes], two per byte
 * - tiled int8 (`tensor/quant/tiled-int8.ts`): `NAME.int8`, int8 [tiles, columns, rows per tile]; `NAME.scales`, float32 [rows]
 */
import { quote } from "../files/errors.ts";
import { viewBytes } from "../tensor/array.ts";
import {
  type BlockFormat,
  BlockMatrix,
  type BlockSize,
  type Blocks,
  blockSizes,
  unpackRows,
} from "../tensor/quant/blocks.ts";
import type { Matrix } from "../tensor/quant/matrix.ts";
import { TiledInt8Matrix } from "../tensor/quant/tiled-int8.ts";
import type { Checkpoint, TensorInfo } from "./checkpoint.ts";
import { packBlocks } from "./gguf/blocks.ts";

/**
 * A view of a checkpoint in which quantized matrices are tensors with their own names; the checkpoint itself if it has none.
 * @throws Error naming file and matrix if a part is missing or has another type or shape
 */
export function withStoredMatrices(checkpoint: Checkpoint): Checkpoint {
  const matrices = new Map<string, StoredMatrix>();
  for (const info of checkpoint.tensors.values()) {
    const matrix = blockMatrix(checkpoint, info) ?? tiledMatrix(checkpoint, info);
    if (matrix) matrices.set(matrix.info.name, matrix);
  }
  if (matrices.size === 0) return checkpoint;
  const hidden = new Set([...matrices.values()].flatMap(({ parts }) => parts.map(({ name }) => name)));
  const plain = [...checkpoint.tensors].filter(([name]) => !hidden.has(name));
  const { path, format, metadata } = checkpoint;
  return {
    path,
    format,
    metadata,
    tensors: new Map([...plain, ...[...matrices].map(([name, { info }]) => [name, info] as const)]),
    readFloat32: (name) => matrices.get(name)?.matrix.readFloat32() ?? checkpoint.readFloat32(name),
    async readBytes(name) {
      const parts = matrices.get(name)?.parts;
      if (!parts) return checkpoint.readBytes(name);
      return Buffer.concat(await Promise.all(parts.map((part) => checkpoint.readBytes(part.name))));
    },
    matrix: (name) => matrices.get(name)?.matrix ?? checkpoint.matrix(name),
    close: () => checkpoint.close(),
    [Symbol.asyncDispose]: () => checkpoint.close(),
  };
}

/** A matrix and the tensors that store it. */
interface StoredMatrix {
  readonly info: TensorInfo;
  readonly parts: readonly TensorInfo[];
  readonly matrix: Matrix;
}

/** Finds a part of a matrix. @throws Error naming file and matrix if it is missing, or has another type or shape */
function requirePart(
  { path, tensors }: Checkpoint,
  matrix: { readonly name: string; readonly format: string },
  { name, type, shape }: { readonly name: string; readonly type: string; readonly shape: readonly number[] },
): TensorInfo {
  const found = tensors.get(name);
  if (found?.storedType === type && `${found.shape}` === `${shape}`) return found;
  const actual = found ? `is ${found.storedType} [${found.shape.join(", ")}]` : "is missing";
  throw new Error(
    `${path}, tensor ${quote(matrix.name)} in ${matrix.format}: its part ${quote(name)} ${actual}, expected ${type} [${shape.join(", ")}]`,
  );
}

/** Names of the parts of a matrix in blocks. */
export const blockPartNames = (name: string, bits: 4 | 8) => ({
  quants: `${name}.int${bits}`,
  scales: `${name}.scales`,
  zeroPoints: `${name}.zero_points`,
});

/** The matrix whose quants are in a tensor; undefined if it contains none. */
function blockMatrix(checkpoint: Checkpoint, quants: TensorInfo): StoredMatrix | undefined {
  const [, name, digits] = /^(.+)\.int([48])$/.exec(quants.name) ?? [];
  if (name === undefined || quants.storedType !== "U8" || quants.shape.length !== 3) return undefined;
  const bits = digits === "4" ? 4 : 8;
  const [rows = 0, blocks = 0, bytes = 0] = quants.shape;
  const names = blockPartNames(name, bits);
  const matrix = { name, format: `${bits}-bit blocks` };
  const found = (bytes * 8) / bits;
  const blockSize = blockSizes.find((size) => size === found);
  // The shape is not that of any block size, so this throws.
  if (!blockSize)
    requirePart(checkpoint, matrix, { name: names.quants, type: "U8", shape: [rows, blocks, (32 * bits) / 8] });
  const size = blockSize ?? 32;
  const format: BlockFormat = { bits, minima: false, zeroPoints: bits === 4, blockSize: size };
  const scales = requirePart(checkpoint, matrix, { name: names.scales, type: "F32", shape: [rows, blocks] });
  const zeroPoints =
    bits === 4
      ? requirePart(checkpoint, matrix, { name: names.zeroPoints, type: "U8", shape: [rows, Math.ceil(blocks / 2)] })
      : undefined;
  const load = async (): Promise<Blocks> => ({
    quants: await checkpoint.readBytes(quants.name),
    scales: viewBytes("float32", await checkpoint.readBytes(scales.name)),
    zeroPoints: zeroPoints && (await checkpoint.readBytes(zeroPoints.name)),
  });
  const columns = blocks * size;
  const parts = [quants, scales, ...(zeroPoints ? [zeroPoints] : [])];
  const byteLength = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const type = bits === 4 ? "Q4_1" : "Q8_0";
  return {
    info: { name, storedType: `INT${bits}`, shape: [rows, columns], byteLength },
    parts,
    matrix: new BlockMatrix({
      name,
      rows,
      columns,
      format,
      load,
      ranges: { quants: quants.range, scales: scales.range, zeroPoints: zeroPoints?.range },
      gguf: { type, read: async () => toGgml(type, await load(), { ...format, columns }) },
    }),
  };
}

/** Converts to GGUF blocks: zero points become minima, the value of level 0, and a larger block several with the same scale. */
function toGgml(
  type: "Q4_1" | "Q8_0",
  { quants, scales, zeroPoints }: Blocks,
  { bits, blockSize, columns }: { readonly bits: 4 | 8; readonly blockSize: BlockSize; readonly columns: number },
): Uint8Array {
  const levels = unpackRows(quants, columns, bits);
  const zeros = zeroPoints && unpackRows(zeroPoints, columns / blockSize, bits);
  const minima = zeros && scales.map((scale, block) => -(zeros[block] as number) * scale);
  const perBlock = (values: Float32Array) => repeatEach(values, blockSize / 32);
  return packBlocks(type, { levels, scales: perBlock(scales), minima: minima && perBlock(minima) });
}

function repeatEach(values: Float32Array, times: number): Float32Array {
  return Float32Array.from({ length: values.length * times }, (_, i) => values[Math.floor(i / times)] as number);
}

/** Names of the parts of a matrix in tiled int8. */
export const tiledPartNames = (name: string) => ({ bytes: `${name}.int8`, scales: `${name}.scales` });

const defaultTileRows = 128;

/** Rows of a tile for a matrix; it is one tile where its rows are not a multiple of 128. */
export function chooseTileRows(rows: number): number {
  return rows % defaultTileRows === 0 ? defaultTileRows : rows;
}

/** The matrix whose bytes are in a tensor; undefined if it contains none. */
function tiledMatrix(checkpoint: Checkpoint, bytes: TensorInfo): StoredMatrix | undefined {
  const [, name] = /^(.+)\.int8$/.exec(bytes.name) ?? [];
  const [tiles = 0, columns = 0, tile = 0] = bytes.shape;
  if (name === undefined || bytes.storedType !== "I8" || bytes.shape.length !== 3) return undefined;
  const rows = tiles * tile;
  const scales = requirePart(
    checkpoint,
    { name, format: "tiled int8" },
    { name: tiledPartNames(name).scales, type: "F32", shape: [rows] },
  );
  const load = async () => ({
    bytes: viewBytes("int8", await checkpoint.readBytes(bytes.name)),
    scales: viewBytes("float32", await checkpoint.readBytes(scales.name)),
  });
  const byteLength = bytes.byteLength + scales.byteLength;
  return {
    info: { name, storedType: "INT8", shape: [rows, columns], byteLength },
    parts: [bytes, scales],
    matrix: new TiledInt8Matrix({
      name,
      rows,
      columns,
      tile,
      load,
      ranges: { bytes: bytes.range, scales: scales.range },
    }),
  };
}
