/** Which weights a network asks for. */
import type { WeightSource } from "./weights.ts";

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
