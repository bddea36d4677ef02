/** Where weights come from: a file, several files as one, or memory. */
import type { FileRange } from "./graph.ts";
import type { BlockSource } from "./quant/blocks.ts";
import type { TileSource } from "./quant/int8.ts";

/** Named tensors: a weight file, or weights in memory. */
export interface WeightSource {
  /** Where the weights come from, for messages. */
  readonly path: string;
  /** `storedType` as the file calls it, where there is one. */
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly storedType?: string }>;
  readFloat32(name: string): Promise<Float32Array>;
  /** Where the bytes of a tensor lie in a file, of whatever type they are; undefined where they do not lie as they are. */
  placeOf?(name: string): FileRange | undefined;
  /** A matrix in stored blocks that products use as they are; undefined if it is not stored so. */
  blocks?(name: string): BlockSource | undefined;
  /** A matrix stored in bytes with a scale for each of its rows, transposed as products take it, in tiles; undefined if it is not stored so. */
  int8Columns?(name: string): TileSource | undefined;
}

/** Weights in memory as a source for a graph. */
export function weightsInMemory(
  path: string,
  arrays: Readonly<Record<string, { readonly shape: readonly number[]; readonly data: Float32Array }>>,
): WeightSource {
  const tensors = new Map(Object.entries(arrays));
  return {
    path,
    tensors,
    async readFloat32(name) {
      const array = tensors.get(name);
      if (!array) throw new Error(`${path} has no tensor "${name}"`);
      return array.data;
    },
  };
}

/** Where several sources have a weight of one name, the first one's counts. */
export function overlayWeights(sources: readonly WeightSource[]): WeightSource {
  const owners = new Map<string, WeightSource>();
  for (const source of sources.toReversed()) for (const name of source.tensors.keys()) owners.set(name, source);
  const ownerOf = (name: string): WeightSource => {
    const owner = owners.get(name);
    if (!owner) throw new Error(`${path} has no tensor "${name}"`);
    return owner;
  };
  const path = sources.map((source) => source.path).join(" and ");
  return {
    path,
    tensors: new Map(
      [...owners].map(([name, owner]) => [name, owner.tensors.get(name) as { readonly shape: readonly number[] }]),
    ),
    readFloat32: (name) => ownerOf(name).readFloat32(name),
    blocks: (name) => owners.get(name)?.blocks?.(name),
    int8Columns: (name) => owners.get(name)?.int8Columns?.(name),
  };
}

/** Remembers which weights a graph has asked for; a checkpoint may hold more. */
export class UsedWeights implements WeightSource {
  readonly names = new Set<string>();
  readonly tensors: WeightSource["tensors"];
  private readonly source: WeightSource;

  constructor(source: WeightSource) {
    this.source = source;
    const { names } = this;
    this.tensors = new (class extends Map<string, { readonly shape: readonly number[] }> {
      override get(name: string) {
        if (this.has(name)) names.add(name);
        return super.get(name);
      }
    })(source.tensors);
  }

  get path(): string {
    return this.source.path;
  }

  readFloat32(name: string): Promise<Float32Array> {
    return this.source.readFloat32(name);
  }

  blocks(name: string): ReturnType<NonNullable<WeightSource["blocks"]>> {
    return this.source.blocks?.(name);
  }

  int8Columns(name: string): ReturnType<NonNullable<WeightSource["int8Columns"]>> {
    return this.source.int8Columns?.(name);
  }
}
