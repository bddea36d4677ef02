/** Weights from several files, as one source. */
import type { WeightSource } from "./weights.ts";

/** Where several sources have a weight of one name, the first one's counts. */
export function layeredWeights(sources: readonly WeightSource[]): WeightSource {
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
