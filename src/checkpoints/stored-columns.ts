/**
 * Matrices [rows, columns] that safetensors files store in bytes with a scale for each row, as 8-bit products take them
 * (`tensor/int8.ts`): of `NAME`, the bytes `NAME.int8`, int8 [tiles, columns, rows of a tile], and `NAME.scales`, float32 [rows].
 */
import { viewBytes } from "../tensor/array.ts";
import { joinTiles, valuesOfColumns } from "../tensor/int8.ts";
import type { Checkpoint, TensorInfo } from "./format.ts";
import { partOf, type StoredMatrix } from "./stored-part.ts";

/** The names of a matrix' parts. */
export const columnParts = (name: string) => ({ bytes: `${name}.int8`, scales: `${name}.scales` });

/** Rows of a tile, where they divide those of the matrix; else it is one tile. */
const usualTile = 128;

export function tileOf(rows: number): number {
  return rows % usualTile === 0 ? usualTile : rows;
}

/** The matrix whose bytes a tensor is; undefined if it is none's. */
export function columnMatrix(checkpoint: Checkpoint, bytes: TensorInfo): StoredMatrix | undefined {
  const [, name] = /^(.+)\.int8$/.exec(bytes.name) ?? [];
  const [tiles = 0, columns = 0, tile = 0] = bytes.shape;
  if (name === undefined || bytes.storedType !== "I8" || bytes.shape.length !== 3) return undefined;
  const rows = tiles * tile;
  const scales = partOf(checkpoint, { name, form: "bytes" }, columnParts(name).scales, "F32", [rows]);
  const load = async () => ({
    bytes: viewBytes("int8", await checkpoint.readBytes(bytes.name)),
    scales: viewBytes("float32", await checkpoint.readBytes(scales.name)),
  });
  const byteLength = bytes.byteLength + scales.byteLength;
  return {
    info: { name, storedType: "INT8", shape: [rows, columns], byteLength },
    parts: [bytes, scales],
    readFloat32: async () => valuesOfColumns(joinTiles(await load(), columns, tile)),
    int8Columns: {
      tile,
      load,
      stored: { bytes: checkpoint.placeOf?.(bytes.name), scales: checkpoint.placeOf?.(scales.name) },
    },
  };
}
