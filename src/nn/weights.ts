/** The weights of a network while its graph is built: a name under a prefix becomes a value or a matrix of the graph. */
import { bytesOf, sizeOf } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { TrainedMatrix } from "../tensor/quant/dense.ts";
import type { Matrix } from "../tensor/quant/matrix.ts";
import { float32, type QuantizationPolicy } from "../tensor/quant/quantization.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";

export interface WeightOptions {
  /** Which weights are trained, as inputs of the graph. @default none */
  readonly trainable?: (name: string) => boolean;
  /** How frozen matrices are multiplied. @default float32 */
  readonly quantization?: QuantizationPolicy;
}

/** Weights below a prefix, as values and matrices of one graph. The same name gives the same value. */
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

  /** The weights whose names begin with `name` and a dot. */
  at(name: string | number): Weights {
    const below: Weights = Object.create(this);
    return Object.assign(below, { prefix: `${this.prefix}${name}.` });
  }

  /** Whether there is a weight of this name, or any weight below it. */
  has(name: string): boolean {
    const full = this.prefix + name;
    if (this.source.tensors.has(full)) return true;
    for (const key of this.source.tensors.keys()) if (key.startsWith(`${full}.`)) return true;
    return false;
  }

  /** The stored shape of a weight, undefined if there is none of this name. */
  shapeOf(name: string): readonly number[] | undefined {
    return this.source.tensors.get(this.prefix + name)?.shape;
  }

  /** Full names of the trained weights that the graph uses, with their inputs. */
  get trained(): ReadonlyMap<string, Value> {
    return new Map([...this.values].filter(([name]) => this.options.trainable?.(name)));
  }

  /** The weight `name` in float32. @throws Error naming file, tensor and shapes if it is missing or of another shape */
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

  /** The matrix `name`. @throws Error naming file, tensor and shapes if it is missing or of another shape */
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
   * Matrices [rows_i, columns] one below the other, for one product instead of several; undefined where they stay separate: trained
   * ones, different kinds, and all in a mapped graph.
   */
  joined(matrices: readonly Matrix[]): Matrix | undefined {
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
        `${this.source.path} has no tensor "${full}" (expected ${formatShape(expected)})${this.nearby(full)}`,
      );
    }
    if (!sameShape(tensor.shape, expected) && !isVectorOf(tensor.shape, expected)) {
      throw new Error(
        `${this.source.path}: tensor "${full}" is ${formatShape(tensor.shape)}, but this network needs ` +
          `${formatShape(expected)}; are these the weights of another model size?`,
      );
    }
  }

  private nearby(full: string): string {
    const end = full.split(".").at(-1) ?? full;
    const similar = [...this.source.tensors.keys()].filter((name) => name.endsWith(end)).slice(0, 3);
    const shown = similar.length > 0 ? similar : [...this.source.tensors.keys()].slice(0, 3);
    return shown.length > 0 ? `; it has, for example, ${shown.map((name) => `"${name}"`).join(", ")}` : "; it is empty";
  }
}

/** Whether only axes of size 1 differ; such weights have the same elements in the same order. */
function isVectorOf(shape: readonly number[], expected: readonly number[]): boolean {
  const squeeze = (dims: readonly number[]) => dims.filter((dim) => dim !== 1);
  return sizeOf(shape) === sizeOf(expected) && sameShape(squeeze(shape), squeeze(expected));
}
