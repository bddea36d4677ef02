/** A network's weights while its graph is built: names under a prefix become constants, or inputs where they are trained. */
import { bytesOf, sizeOf } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { gather } from "../tensor/ops/gather.ts";
import { concat } from "../tensor/ops/layout.ts";
import { matmul } from "../tensor/ops/matmul.ts";
import {
  type BlockSource,
  gatherBlocks,
  matmulBlocks,
  sameFormat,
  stackBlocks,
  stackStored,
} from "../tensor/quant/blocks.ts";
import { matmulInt4, quantizeInt4 } from "../tensor/quant/int4.ts";
import {
  type ActivationBits,
  joinColumns,
  joinTiles,
  matmulInt8,
  type TiledMatrix,
  type TileSource,
  takesTiles,
  tiledProducts,
} from "../tensor/quant/int8.ts";
import { formatShape, sameShape } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";

/** A matrix [out, in] by its name, where `in` is known. */
interface MatrixShape {
  readonly name: string;
  readonly out: number;
}

/** Bits of the activations where a matrix is multiplied in 8-bit arithmetic; undefined where it is not. */
type Int8Choice = (name: string) => ActivationBits | undefined;

export interface WeightOptions {
  /** Which weights are inputs of the graph, to be trained; none by default. */
  readonly trainable?: (name: string) => boolean;
  /** Which matrices are used in the blocks that the file stores, or rounded to 4 bits; none by default. */
  readonly int4?: (name: string) => boolean;
  /** Elements of a row that share a scale in 4 bits. If given, what the file stores in smaller blocks is rounded anew. */
  readonly blockSize?: number;
  /**
   * Which frozen matrices are multiplied in 8-bit arithmetic, forward and backward, and in how many bits what they are
   * multiplied with; none by default.
   */
  readonly int8?: Int8Choice;
  /** Matrices that a file stores in bytes are multiplied where they lie there; see `MappedModel`. */
  readonly mapped?: boolean;
}

/** Matrices that a file stores in blocks or in bytes are multiplied as they are, all others in float32. */
export function asStored(source: WeightSource): WeightOptions {
  return {
    int4: (name) => source.blocks?.(name) !== undefined,
    int8: (name) => (source.int8Columns?.(name) ? 8 : undefined),
  };
}

/** Weights below a prefix, as values of one graph. Asking twice for a name gives the same value. */
export class Weights {
  readonly graph: Graph;
  private readonly source: WeightSource;
  private readonly options: WeightOptions;
  private readonly prefix: string;
  private readonly values: Map<string, Value>;

  constructor(graph: Graph, source: WeightSource, options: WeightOptions = {}) {
    this.graph = graph;
    this.source = source;
    this.options = options;
    this.prefix = "";
    this.values = new Map();
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

  /** Names of the trained weights that have been asked for, with the inputs that stand for them. */
  get trained(): ReadonlyMap<string, Value> {
    return new Map([...this.values].filter(([name]) => this.options.trainable?.(name)));
  }

  /** The weight `name`. @throws Error naming file, tensor and shapes if it is missing or not of the expected shape */
  get(name: string, expected: readonly number[]): Value {
    const full = this.prefix + name;
    this.check(full, expected);
    const known = this.values.get(full);
    if (known) return known;
    const value = this.options.trainable?.(full)
      ? this.graph.input(full, "float32", expected)
      : this.graph.weight(
          full,
          "float32",
          expected,
          async () => bytesOf(await this.source.readFloat32(full)),
          // Integers of 32 bits have as many bytes, but must be converted.
          this.source.tensors.get(full)?.storedType === "F32" ? this.source.placeOf?.(full) : undefined,
        );
    this.values.set(full, value);
    return value;
  }

  /** x [..., in] times the transposed matrices [out_i, in], joined: [..., sum of out_i]. One product where all are frozen. */
  product(x: Value, matrices: readonly MatrixShape[]): Value {
    const columns = x.dim(-1);
    if (typeof columns !== "number")
      throw new Error(`${this.graph.where()}product of ${x}: its last axis has no known size`);
    const names = matrices.map(({ name }) => this.prefix + name);
    const arithmetic = this.arithmeticOf(names);
    const [first] = matrices;
    if (first && matrices.length === 1 && arithmetic === undefined) {
      return matmul(x, this.get(first.name, [first.out, columns]), { transB: true });
    }
    for (const { name, out } of matrices) this.check(this.prefix + name, [out, columns]);
    const tiled = matrices.length === 1 ? this.tiled(matrices) : undefined;
    if (tiled) return tiledProducts(x, tiled, ([only]) => only as Value);
    const rows = matrices.reduce((sum, { out }) => sum + out, 0);
    const name = names.join(",");
    const load = () => this.stack(names, rows * columns);
    if (arithmetic === "int4") {
      const { blockSize } = this.options;
      const stored = blockSize ? [] : names.flatMap((full) => this.source.blocks?.(full) ?? []);
      if (stored.length > 0) return this.storedProduct(x, matrices, stored);
      const quantize = async () => quantizeInt4(await load(), rows, columns, blockSize ?? 32);
      return matmulInt4(x, { name, rows, columns, blockSize: blockSize ?? 32, load: quantize });
    }
    if (arithmetic !== undefined) {
      const stored = names.flatMap((full) => this.source.int8Columns?.(full) ?? []);
      const whole = async (part: TileSource) => joinTiles(await part.load(), columns, part.tile);
      const rounded = async () => joinColumns(await Promise.all(stored.map(whole)), columns);
      const isStored = stored.length === names.length;
      return matmulInt8(x, { name, rows, columns, load, ...(isStored && { rounded }) }, { activations: arithmetic });
    }
    let stacked = this.values.get(name);
    if (!stacked) {
      stacked = this.graph.weight(name, "float32", [rows, columns], async () => bytesOf(await load()));
      this.values.set(name, stacked);
    }
    return matmul(x, stacked, { transB: true });
  }

  /** Products with matrices alike, which `combine` makes one of, element by element; where they come in tiles, before these are put in order. */
  combined(x: Value, matrices: readonly MatrixShape[], combine: (products: readonly Value[]) => Value): Value {
    for (const { name, out } of matrices) this.check(this.prefix + name, [out, x.size(-1)]);
    const tiled = this.tiled(matrices);
    return tiled ? tiledProducts(x, tiled, combine) : combine(matrices.map((matrix) => this.product(x, [matrix])));
  }

  /** Rows of the table `name` [count, size] -> [...ids, size]. Where products take the file's blocks, rows are read out of them too. */
  rows(name: string, ids: Value, [count, size]: readonly [number, number]): Value {
    const full = this.prefix + name;
    const stored = this.options.int4?.(full) ? this.source.blocks?.(full) : undefined;
    if (!stored) return gather(this.get(name, [count, size]), ids);
    this.check(full, [count, size]);
    return gatherBlocks(ids, `${full}.rows`, { rows: count, columns: size }, stored);
  }

  /** Whether these matrices are best multiplied as one: what is trained stays by itself, and what is multiplied where it lies. */
  isOneProduct(names: readonly string[]): boolean {
    const { trainable, mapped } = this.options;
    return !mapped && !names.some((name) => trainable?.(this.prefix + name));
  }

  /** The matrices in tiles, where all are and have one size, and are multiplied where they lie. */
  private tiled(matrices: readonly MatrixShape[]): TiledMatrix[] | undefined {
    if (!this.options.mapped || !takesTiles()) return undefined;
    const found = matrices.flatMap(({ name, out: rows }) => {
      const tiles = this.source.int8Columns?.(this.prefix + name);
      return tiles ? [{ name: this.prefix + name, rows, tiles }] : [];
    });
    const isAlike = ({ rows, tiles }: TiledMatrix) => rows === found[0]?.rows && tiles.tile === found[0].tiles.tile;
    return found.length === matrices.length && found.every(isAlike) ? found : undefined;
  }

  /** How these matrices are multiplied where all of them ask for the same, by the bits of int8's activations; undefined for float32. */
  private arithmeticOf(names: readonly string[]): "int4" | ActivationBits | undefined {
    const { int4, int8, trainable } = this.options;
    const both = names.find((name) => int4?.(name) && int8?.(name));
    if (both) throw new Error(`"${both}" is asked for in 4 bits and in 8 bits; choose one of them`);
    if (names.every((name) => int4?.(name))) return "int4";
    const [first, ...others] = names.map((name) => (trainable?.(name) ? undefined : int8?.(name)));
    return others.every((other) => other === first) ? first : undefined;
  }

  /** A product with blocks as the file stores them. Matrices of several formats cannot be one product. */
  private storedProduct(x: Value, matrices: readonly MatrixShape[], stored: readonly BlockSource[]): Value {
    const [first] = stored;
    const alike = first && stored.every(({ format }) => sameFormat(format, first.format));
    if (!alike || stored.length !== matrices.length) {
      return concat(
        matrices.map((matrix) => this.product(x, [matrix])),
        -1,
      );
    }
    const rows = matrices.reduce((sum, { out }) => sum + out, 0);
    const name = matrices.map((matrix) => this.prefix + matrix.name).join(",");
    const load = async () => {
      const parts = [];
      for (const source of stored) parts.push(await source.load());
      return stackBlocks(parts);
    };
    const places = stackStored(stored.map((part) => part.stored));
    return matmulBlocks(x, name, { rows, columns: x.size(-1) }, { format: first.format, load, stored: places });
  }

  private async stack(names: readonly string[], size: number): Promise<Float32Array> {
    const all = new Float32Array(size);
    let offset = 0;
    for (const name of names) {
      const part = await this.source.readFloat32(name);
      all.set(part, offset);
      offset += part.length;
    }
    return all;
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
