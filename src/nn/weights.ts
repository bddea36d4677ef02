/** The weights of a network while its graph is built: resolves a name below a prefix to a value or a matrix. */
import { bytesOf, sizeOf } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { TrainedMatrix } from "../tensor/quant/dense.ts";
import type { Matrix } from "../tensor/quant/matrix.ts";
import { float32, type QuantizationPolicy } from "../tensor/quant/quantization.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";

export interface WeightOptions {
  /** Which weights are trainable, that is, inputs of the graph. @default none */
  readonly trainable?: (name: string) => boolean;
  /** Quantization of frozen matrices. @default float32 */
  readonly quantization?: QuantizationPolicy;
}

/** Weights below a prefix, as values and matrices of one graph. A name always returns the same value. */
export class Weights {
  readonly graph: Graph;
  private readonly source: WeightSource;
  private readonly options: WeightOptions;
  private readonly prefix: string;
  private readonly values: Map<string, Value>;
  private readonly matrices: Map<string, Matrix>;

  constructor(graph: Graph, source: WeightSource, options: WeightOptions = {}) {
    this.graph = graph;
    this.source = source;
    this.options = options;
    this.prefix = "";
    this.values = new Map();
    this.matrices = new Map();
  }

  /** The weights whose names start with `name` and a dot. */
  at(name: string | number): Weights {
    const below: Weights = Object.create(this);
    return Object.assign(below, { prefix: `${this.prefix}${name}.` });
  }

  /** Whether a weight of this name, or any weight below it, exists. */
  has(name: string): boolean {
    const full = this.prefix + name;
    if (this.source.tensors.has(full)) return true;
    for (const key of this.source.tensors.keys()) if (key.startsWith(`${full}.`)) return true;
    return false;
  }

  /** The stored shape of a weight; undefined if it is missing. */
  shapeOf(name: string): readonly number[] | undefined {
    return this.source.tensors.get(this.prefix + name)?.shape;
  }

  /** The trainable weights that the graph uses: full name -> input. */
  get trained(): ReadonlyMap<string, Value> {
    return new Map([...this.values].filter(([name]) => this.options.trainable?.(name)));
  }

  /** Returns the weight `name` in float32. @throws Error with file, tensor and shapes if it is missing or has another shape */
  get(name: string, expected: readonly number[]): Value {
    const full = this.prefix + name;
    this.check(full, expected);
    const known = this.values.get(full);
    if (known) return known;
    const { source, graph } = this;
    const { storedType, range } = source.tensors.get(full) ?? {};
    const load = async () => bytesOf(await source.readFloat32(full));
    const value = this.options.trainable?.(full)
      ? graph.input(full, "float32", expected)
      : graph.weight(full, "float32", expected, load, storedType === "F32" ? range : undefined);
    this.values.set(full, value);
    return value;
  }

  /** Returns the matrix `name`. @throws Error with file, tensor and shapes if it is missing or has another shape */
  matrix(name: string, [rows, columns]: readonly [rows: number, columns: number]): Matrix {
    const full = this.prefix + name;
    this.check(full, [rows, columns]);
    return this.once(full, () => {
      const { source, options } = this;
      if (options.trainable?.(full)) {
        return new TrainedMatrix(this.get(name, [rows, columns]), () => source.readFloat32(full));
      }
      return (options.quantization ?? float32)(source.matrix(full), full);
    });
  }

  /**
   * Concatenates matrices [rows_i, columns], to replace several products by one. Returns undefined if they must stay separate: trainable
   * ones, different kinds, and all in a mapped graph.
   */
  concat(matrices: readonly Matrix[]): Matrix | undefined {
    const [first, ...others] = matrices;
    if (!first || this.graph.mapped) return undefined;
    const key = matrices.map(({ name }) => name).join(",");
    const known = this.matrices.get(key);
    if (known) return known;
    const joined = first.concat(others);
    if (joined) this.matrices.set(key, joined);
    return joined;
  }

  private once(key: string, make: () => Matrix): Matrix {
    const known = this.matrices.get(key);
    if (known) return known;
    const matrix = make();
    this.matrices.set(key, matrix);
    return matrix;
  }

  private check(full: string, expected: readonly number[]): void {
    const tensor = this.source.tensors.get(full);
    if (!tensor) {
      throw new Error(
        `${this.source.path} has no tensor "${full}" (expected ${formatShape(expected)})${this.suggest(full)}`,
      );
    }
    if (!sameShape(tensor.shape, expected) && !isSameSqueezed(tensor.shape, expected)) {
      throw new Error(
        `${this.source.path}: tensor "${full}" is ${formatShape(tensor.shape)}, but this network needs ` +
          `${formatShape(expected)}; are these the weights of another model size?`,
      );
    }
  }

  private suggest(full: string): string {
    const end = full.split(".").at(-1) ?? full;
    const similar = [...this.source.tensors.keys()].filter((name) => name.endsWith(end)).slice(0, 3);
    const examples = similar.length > 0 ? similar : [...this.source.tensors.keys()].slice(0, 3);
    return examples.length > 0
      ? `; it has, for example, ${examples.map((name) => `"${name}"`).join(", ")}`
      : "; it is empty";
  }
}

/** Whether only axes of size 1 differ, so that the elements and their order are the same. */
function isSameSqueezed(shape: readonly number[], expected: readonly number[]): boolean {
  const squeeze = (dims: readonly number[]) => dims.filter((dim) => dim !== 1);
  return sizeOf(shape) === sizeOf(expected) && sameShape(squeeze(shape), squeeze(expected));
}
