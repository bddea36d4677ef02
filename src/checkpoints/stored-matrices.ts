/** A view of a checkpoint in which matrices that are stored in parts are tensors under their own names. */
import type { Checkpoint } from "./format.ts";
import { blockMatrix } from "./stored-blocks.ts";
import { columnMatrix } from "./stored-columns.ts";
import type { StoredMatrix } from "./stored-part.ts";

/**
 * The checkpoint itself if it has no such matrices.
 * @throws Error naming file and matrix if a part of one is missing or of another size
 */
export function withStoredMatrices(checkpoint: Checkpoint): Checkpoint {
  const matrices = new Map<string, StoredMatrix>();
  for (const info of checkpoint.tensors.values()) {
    const matrix = blockMatrix(checkpoint, info) ?? columnMatrix(checkpoint, info);
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
    readFloat32: (name) => matrices.get(name)?.readFloat32() ?? checkpoint.readFloat32(name),
    async readBytes(name) {
      const parts = matrices.get(name)?.parts;
      if (!parts) return checkpoint.readBytes(name);
      return Buffer.concat(await Promise.all(parts.map((part) => checkpoint.readBytes(part.name))));
    },
    blocks: (name) => (matrices.get(name) ?? { blocks: checkpoint.blocks?.(name) }).blocks,
    placeOf: (name) => checkpoint.placeOf?.(name),
    int8Columns: (name) => matrices.get(name)?.int8Columns,
    close: () => checkpoint.close(),
  };
}
