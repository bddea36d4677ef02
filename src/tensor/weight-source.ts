/** Where weights come from: a file, several files as one, or memory. */
import { sizeOf } from "./array.ts";
import type { FileRange } from "./graph.ts";
import { DenseMatrix } from "./quant/dense.ts";
import type { Matrix } from "./quant/matrix.ts";

/** What is known of a weight before it is read. */
interface WeightInfo {
  readonly shape: readonly number[];
  /** The element type in the file's own words, if it comes from one. */
  readonly storedType?: string;
  /** Where its bytes, in the stored type, lie in a file. */
  readonly range?: FileRange;
}

/** Named tensors: a weight file, or weights in memory. */
export interface WeightSource {
  /** Where the weights come from, for messages. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, WeightInfo>;
  readFloat32(name: string): Promise<Float32Array>;
  /** The tensor as a matrix of the kind in which it is stored. @throws Error if there is no tensor of that name */
  matrix(name: string): Matrix;
}

/** A tensor of a source as a float32 matrix [first axis, all other axes]; axes of size 1 before the last two do not count. */
export function denseMatrix(source: Pick<WeightSource, "path" | "tensors" | "readFloat32">, name: string): Matrix {
  const info = source.tensors.get(name);
  if (!info) throw missing(source.path, name);
  const { shape, storedType, range } = info;
  const [rows = 1, ...others] = shape.length === 2 ? shape : shape.filter((size) => size !== 1);
  return new DenseMatrix({
    name,
    rows,
    columns: sizeOf(others),
    readFloat32: () => source.readFloat32(name),
    range: storedType === "F32" ? range : undefined,
  });
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
      if (!array) throw missing(path, name);
      return array.data;
    },
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}

/** Several sources as one. Where more than one has a weight of the same name, the first one's is used. */
export function overlayWeights(sources: readonly WeightSource[]): WeightSource {
  const owners = new Map<string, WeightSource>();
  const tensors = new Map<string, WeightInfo>();
  for (const source of sources.toReversed()) {
    for (const [name, info] of source.tensors) {
      owners.set(name, source);
      tensors.set(name, info);
    }
  }
  const path = sources.map((source) => source.path).join(" and ");
  const owner = (name: string): WeightSource => {
    const found = owners.get(name);
    if (!found) throw missing(path, name);
    return found;
  };
  return {
    path,
    tensors,
    readFloat32: (name) => owner(name).readFloat32(name),
    matrix: (name) => owner(name).matrix(name),
  };
}

/** Records which weights a graph uses; a checkpoint may hold more. */
export class UsedWeights implements WeightSource {
  readonly names = new Set<string>();
  readonly path: string;
  readonly tensors: WeightSource["tensors"];
  private readonly source: WeightSource;

  constructor(source: WeightSource) {
    this.source = source;
    this.path = source.path;
    const { names } = this;
    this.tensors = new (class extends Map<string, WeightInfo> {
      override get(name: string) {
        if (this.has(name)) names.add(name);
        return super.get(name);
      }
    })(source.tensors);
  }

  readFloat32(name: string): Promise<Float32Array> {
    return this.source.readFloat32(name);
  }

  matrix(name: string): Matrix {
    return this.source.matrix(name);
  }
}

function missing(path: string, name: string): Error {
  return new Error(`${path} has no tensor "${name}"`);
}
