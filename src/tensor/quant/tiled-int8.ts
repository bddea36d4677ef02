/**
 * Int8 matrices that a file stores in tiles of their columns, so that they can be multiplied where they lie.
 *
 * In a mapped graph the bytes are used from the file, without packing. In rows of all columns, of which a thread of the processor needs a
 * few at a time, they would be read in jumps, which takes two to three times as long. In other graphs the tiles are joined.
 */
import { bytesOf } from "../array.ts";
import { type FileRange, single, type Value } from "../graph.ts";
import { reshape, transpose } from "../ops/layout.ts";
import { mulDims } from "../shapes.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { dequantizeColumns, Int8Matrix, joinColumns, RowQuantizer, rowScales, zeroOf } from "./int8.ts";
import { checkInnerSize, type Int8Columns, loadOnce, Matrix } from "./matrix.ts";

export interface TiledInt8Source {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Rows of the matrix per tile; `rows` is a multiple of it. */
  readonly tile: number;
  /** Bytes [tiles, columns, tile], scales [rows]. */
  load(): Promise<Int8Columns>;
  /** Where bytes and scales lie in files. */
  readonly ranges?: { readonly bytes?: FileRange; readonly scales?: FileRange };
}

export class TiledInt8Matrix extends Matrix {
  readonly kind = "tiled-int8";
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly tile: number;
  private readonly source: TiledInt8Source;

  constructor(source: TiledInt8Source) {
    super();
    this.name = source.name;
    this.rows = source.rows;
    this.columns = source.columns;
    this.tile = source.tile;
    this.source = source;
  }

  /** In a mapped graph there is no gradient. */
  matmul(x: Value): Value {
    checkInnerSize(x, this);
    if (usesTiles(x)) return tiledProducts(x, [this.source], ([only]) => only as Value);
    return new Int8Matrix(this).matmul(x);
  }

  gather(ids: Value): Value {
    return new Int8Matrix(this).gather(ids);
  }

  async readFloat32(): Promise<Float32Array> {
    return dequantizeColumns(await this.readInt8());
  }

  override async readInt8(): Promise<Int8Columns> {
    return joinTiles(await this.source.load(), this.columns, this.tile);
  }

  override concat(others: readonly Matrix[]): Matrix | undefined {
    if (!others.every((other) => other instanceof TiledInt8Matrix)) return undefined;
    return new Int8Matrix(this).concat(others.map((other) => new Int8Matrix(other)));
  }

  /** Applies the function to the tiles, before their columns are put in order. */
  override combine(x: Value, others: readonly Matrix[], elementwise: (products: readonly Value[]) => Value): Value {
    const alike = others.flatMap((other) =>
      other instanceof TiledInt8Matrix && other.rows === this.rows && other.tile === this.tile ? [other.source] : [],
    );
    checkInnerSize(x, this);
    if (!usesTiles(x) || alike.length < others.length) return super.combine(x, others, elementwise);
    return tiledProducts(x, [this.source, ...alike], elementwise);
  }
}

/** Whether this processor can multiply bytes as they lie in tiles: not where their sums would overflow. */
export function canMultiplyTiles(): boolean {
  return largestInt8Weight(thisCpu()) === 127;
}

function usesTiles({ graph }: Value): boolean {
  return graph.mapped && canMultiplyTiles();
}

/** Products of x [..., columns] with matrices of one size, [tiles, ..., tile] each, combined elementwise -> [..., rows]. */
function tiledProducts(
  x: Value,
  matrices: readonly TiledInt8Source[],
  combine: (products: readonly Value[]) => Value,
): Value {
  const [columns, outer] = [x.size(-1), matrices[0]?.rows ?? 0];
  const rows = x.shape.slice(0, -1).reduce((product, dim) => mulDims(product, dim), 1);
  const scales = rowScales(x);
  const quants = reshape(new RowQuantizer(scales, zeroOf(x.graph)).quantize(x, scales), [rows, columns]);
  const products = matrices.map((matrix) => productInTiles(quants, matrix).mul(reshape(scales, [rows, 1])));
  return reshape(transpose(combine(products), [1, 0, 2]), [...x.shape.slice(0, -1), outer]);
}

/** Rounded activations [rows, inner] times a matrix -> [tiles, rows, tile], without the scales of the activations. */
function productInTiles(quants: Value, { name, rows: outer, tile, load, ranges }: TiledInt8Source): Value {
  const { graph } = quants;
  const [rows, inner] = [quants.dim(0), quants.size(1)];
  const count = outer / tile;
  const loaded = loadOnce(load, 2);
  const inputs = [
    quants,
    graph.weight(
      `${name}.tiles`,
      "int8",
      [count, inner, tile],
      async () => bytesOf((await loaded()).bytes),
      ranges?.bytes,
    ),
    graph.scalar(1),
    graph.weight(
      `${name}.tileScales`,
      "float32",
      [count, 1, tile],
      async () => bytesOf((await loaded()).scales),
      ranges?.scales,
    ),
    zeroOf(graph),
  ];
  const type = { dtype: "float32", shape: [count, rows, tile] } as const;
  return single(graph.node("MatMulIntegerToFloat", inputs, [type], { domain: "com.microsoft" }));
}

/** Tiles [tiles, columns, tile] as one [columns, rows]. */
export function joinTiles({ bytes, scales }: Int8Columns, inner: number, tile: number): Int8Columns {
  const size = inner * tile;
  const tiles = Array.from({ length: scales.length / tile }, (_, i) => ({
    bytes: bytes.subarray(i * size, (i + 1) * size),
    scales: scales.subarray(i * tile, (i + 1) * tile),
  }));
  return joinColumns(tiles, inner);
}
