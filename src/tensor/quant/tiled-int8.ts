/**
 * Int8 matrices stored in tiles, so that they can be multiplied directly from a mapped file.
 *
 * In a mapped graph the bytes are not packed. A thread reads a few output columns at a time: with full rows its reads would be strided, which
 * is two to three times slower. In other graphs the tiles are joined.
 */
import { bytesOf } from "../array.ts";
import { type FileRange, single, type Value } from "../graph.ts";
import { reshape, transpose } from "../ops/layout.ts";
import { mulDims } from "../shapes.ts";
import { largestInt8Weight, thisCpu } from "./cpu.ts";
import { dequantizeColumns, Int8Matrix, int8ZeroPoint, joinColumns, RowQuantizer, rowScales } from "./int8.ts";
import { checkInnerSize, type Int8Columns, loadOnce, Matrix } from "./matrix.ts";

/** A stored tiled matrix [rows, columns]. */
export interface TiledInt8Source {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Rows of the matrix per tile; `rows` is a multiple of it. */
  readonly tile: number;
  /** Loads bytes [tiles, columns, tile] and scales [rows]. */
  load(): Promise<Int8Columns>;
  /** File ranges of bytes and scales. */
  readonly ranges?: { readonly bytes?: FileRange; readonly scales?: FileRange };
}

/** An int8 matrix [rows, columns] in tiles of `tile` rows. */
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

  /** It has no gradient in a mapped graph. */
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

  /** Applies the function to the tiles, before the columns are reordered. */
  override combine(x: Value, others: readonly Matrix[], elementwise: (products: readonly Value[]) => Value): Value {
    const alike = others.flatMap((other) =>
      other instanceof TiledInt8Matrix && other.rows === this.rows && other.tile === this.tile ? [other.source] : [],
    );
    checkInnerSize(x, this);
    if (!usesTiles(x) || alike.length < others.length) return super.combine(x, others, elementwise);
    return tiledProducts(x, [this.source, ...alike], elementwise);
  }
}

/** Whether this processor can multiply stored tiles without overflow. */
export function canMultiplyTiles(): boolean {
  return largestInt8Weight(thisCpu()) === 127;
}

function usesTiles({ graph }: Value): boolean {
  return graph.mapped && canMultiplyTiles();
}

/** Products of x [..., columns] with matrices of one size, [tiles, positions, tile] each, combined elementwise -> [..., rows]. */
function tiledProducts(
  x: Value,
  matrices: readonly TiledInt8Source[],
  combine: (products: readonly Value[]) => Value,
): Value {
  const [columns, outer] = [x.size(-1), matrices[0]?.rows ?? 0];
  const rows = x.shape.slice(0, -1).reduce((product, dim) => mulDims(product, dim), 1);
  const scales = rowScales(x);
  const quants = reshape(new RowQuantizer(scales, int8ZeroPoint(x.graph)).quantize(x, scales), [rows, columns]);
  const products = matrices.map((matrix) => productInTiles(quants, matrix).mul(reshape(scales, [rows, 1])));
  return reshape(transpose(combine(products), [1, 0, 2]), [...x.shape.slice(0, -1), outer]);
}

/** Quantized activations [rows, inner] times a matrix -> [tiles, rows, tile], not yet scaled by the activations' scales. */
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
    int8ZeroPoint(graph),
  ];
  const type = { dtype: "float32", shape: [count, rows, tile] } as const;
  return single(graph.node("MatMulIntegerToFloat", inputs, [type], { domain: "com.microsoft" }));
}

/** Joins tiles: [tiles, columns, tile] -> [columns, rows]. */
export function joinTiles({ bytes, scales }: Int8Columns, inner: number, tile: number): Int8Columns {
  const size = inner * tile;
  const tiles = Array.from({ length: scales.length / tile }, (_, i) => ({
    bytes: bytes.subarray(i * size, (i + 1) * size),
    scales: scales.subarray(i * tile, (i + 1) * tile),
  }));
  return joinColumns(tiles, inner);
}
