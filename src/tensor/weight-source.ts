/** Sources of weights: a file, an overlay of several sources, or memory. */
import { sizeOf } from "./array.ts";
import type { FileRange } from "./graph.ts";
import { DenseMatrix } from "./quant/dense.ts";
import type { Matrix } from "./quant/matrix.ts";

/** A weight's metadata. */
interface WeightInfo {
  readonly shape: readonly number[];
  /** The element type in the vocabulary of the file format. */
  readonly storedType?: string;
  /** The file range with its bytes, in the stored type. */
  readonly range?: FileRange;
}

/** Named tensors of a weight file or in memory. */
export interface WeightSource {
  /** The file or another description of the source, for messages. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, WeightInfo>;
  readFloat32(name: string): Promise<Float32Array>;
  /** The tensor as a matrix of its stored kind. @throws Error if the tensor is missing */
  matrix(name: string): Matrix;
}

/** Returns a tensor as a float32 matrix [first axis, all other axes]. If it does not have two axes, axes of size 1 are dropped first. */
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

/** Creates a source from arrays in memory. */
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

/** Combines sources. If several have a weight of the same name, the first one wins. */
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

/** Records which weights of a source a graph uses. */
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
