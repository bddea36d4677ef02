/** Matrices in float32: frozen ones are constants of the graph, trainable ones are its inputs. */
import { bytesOf } from "../array.ts";
import type { FileRange, Graph, Value } from "../graph.ts";
import { gather } from "../ops/gather.ts";
import { matmul } from "../ops/matmul.ts";
import { checkInnerSize, Matrix } from "./matrix.ts";

/** A stored matrix [rows, columns]. */
export interface DenseSource {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** The values, row-major. */
  readFloat32(): Promise<Float32Array>;
  /** The file range with the values as float32. */
  readonly range?: FileRange;
}

/** A frozen matrix in float32. */
export class DenseMatrix extends Matrix {
  readonly kind = "float32";
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  private readonly source: DenseSource;

  constructor(source: DenseSource) {
    super();
    this.name = source.name;
    this.rows = source.rows;
    this.columns = source.columns;
    this.source = source;
  }

  /** Converts a matrix of any kind to float32. */
  static from(matrix: Matrix): Matrix {
    return matrix.kind === "float32" ? matrix : new DenseMatrix(matrix);
  }

  matmul(x: Value): Value {
    checkInnerSize(x, this);
    return matmul(x, this.constant(x.graph), { transB: true });
  }

  gather(ids: Value): Value {
    return gather(this.constant(ids.graph), ids);
  }

  readFloat32(): Promise<Float32Array> {
    return this.source.readFloat32();
  }

  override concat(others: readonly Matrix[]): Matrix | undefined {
    const parts: readonly Matrix[] = [this, ...others];
    if (!parts.every((part) => part instanceof DenseMatrix)) return undefined;
    return new DenseMatrix(concatSource(parts));
  }

  /** The matrix as a constant, one per graph. */
  private constant(graph: Graph): Value {
    const { name, rows, columns, source } = this;
    return graph.shared(this, () =>
      graph.weight(name, "float32", [rows, columns], async () => bytesOf(await source.readFloat32()), source.range),
    );
  }
}

/** A trainable matrix: an input [rows, columns] of the graph. It is not concatenated with others, because each needs its own gradient. */
export class TrainedMatrix extends Matrix {
  readonly kind = "float32";
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  private readonly value: Value;
  private readonly read: () => Promise<Float32Array>;

  constructor(value: Value, readFloat32: () => Promise<Float32Array>) {
    super();
    this.name = value.name;
    this.rows = value.size(0);
    this.columns = value.size(1);
    this.value = value;
    this.read = readFloat32;
  }

  matmul(x: Value): Value {
    checkInnerSize(x, this);
    return matmul(x, this.value, { transB: true });
  }

  gather(ids: Value): Value {
    return gather(this.value, ids);
  }

  /** The initial values. */
  readFloat32(): Promise<Float32Array> {
    return this.read();
  }
}

/** Concatenates the rows of matrices of one width, which are read one at a time. */
export function concatSource(parts: readonly Matrix[]): DenseSource {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const columns = parts[0]?.columns ?? 0;
  return {
    name: parts.map(({ name }) => name).join(","),
    rows,
    columns,
    async readFloat32() {
      const all = new Float32Array(rows * columns);
      let offset = 0;
      for (const part of parts) {
        const values = await part.readFloat32();
        all.set(values, offset);
        offset += values.length;
      }
      return all;
    },
  };
}
