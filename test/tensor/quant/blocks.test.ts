import fc from "fast-check";
import { expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import {
  type BlockFormat,
  BlockMatrix,
  type BlockSize,
  type Blocks,
  concatBlocks,
  dequantizeBlocks,
  quantizeBlocks,
} from "../../../src/tensor/quant/blocks.ts";
import { DenseMatrix } from "../../../src/tensor/quant/dense.ts";
import { Int8Matrix } from "../../../src/tensor/quant/int8.ts";
import { TiledInt8Matrix } from "../../../src/tensor/quant/tiled-int8.ts";
import { Random } from "../../../src/tensor/random.ts";

const [rows, columns] = [24, 96];

const randomBytes = (length: number, random: Random) =>
  Uint8Array.from({ length }, () => Math.floor(random.uniform() * 256));
/** Of the zero points of a row; those of 4 bits fill whole bytes only with an even number of blocks. */
const zeroBytes = ({ bits, blockSize }: BlockFormat) => Math.ceil((columns / blockSize / 8) * bits);

function randomBlocks(format: BlockFormat, random: Random): Blocks {
  const blocks = (rows * columns) / format.blockSize;
  // Numbers of a few bits, as those in files are: float32 holds their products with levels.
  const inSteps = (value: number) => Math.round(value * 2 ** 12) / 2 ** 12;
  const scales = Float32Array.from({ length: blocks }, () => inSteps(0.1 * (random.uniform() - 0.2)));
  // Some within the range of the levels, some far outside.
  const minima = scales.map((scale) => inSteps(scale * (random.uniform() * 40 - 30)));
  return {
    quants: randomBytes((rows * columns * format.bits) / 8, random),
    scales,
    ...(format.minima && { minima }),
    ...(format.zeroPoints && { zeroPoints: randomBytes(rows * zeroBytes(format), random) }),
  };
}

function elements({ quants, scales, minima, zeroPoints }: Blocks, format: BlockFormat): Float64Array {
  const { bits, blockSize } = format;
  const blocks = columns / blockSize;
  const zeroOf = (block: number) => {
    if (!zeroPoints) return minima ? 0 : 2 ** (bits - 1);
    const [row, own] = [Math.floor(block / blocks) * zeroBytes(format), block % blocks];
    return bits === 8 ? Number(zeroPoints[row + own]) : (Number(zeroPoints[row + (own >> 1)]) >> (4 * (own & 1))) & 15;
  };
  return Float64Array.from({ length: scales.length * blockSize }, (_, i) => {
    const q = bits === 8 ? (quants[i] as number) : ((quants[i >> 1] as number) >> (4 * (i & 1))) & 15;
    const block = Math.floor(i / blockSize);
    return (q - zeroOf(block)) * (scales[block] as number) + (minima?.[block] ?? -0);
  });
}

const offsets = [
  { offset: "zero in the middle", minima: false },
  { offset: "zero points", minima: false, zeroPoints: true },
  { offset: "minima", minima: true },
];
const formats = ([4, 8] as const).flatMap((bits) =>
  offsets.flatMap((offset) => ([16, 32] as const).map((blockSize) => ({ bits, ...offset, blockSize }))),
);

// The engine has other code for one row than for many.
const cases = formats.flatMap((format) => [1, 40].map((count) => ({ ...format, count })));
test.each(cases)(
  "$count rows, $bits bits, $offset, blocks of $blockSize: only activations are rounded",
  async ({ count, ...format }) => {
    const random = new Random(format.blockSize + format.bits);
    const blocks = randomBlocks(format, random);
    const data = Float32Array.from({ length: count * columns }, () => random.normal());
    const graph = new Graph();
    const input = graph.input("x", "float32", ["n", columns]);
    const y = new BlockMatrix({ name: "w", rows, columns, format, load: async () => blocks }).matmul(input);
    const feeds = { x: ndarray("float32", [count, columns], data) };
    const found = (await evaluate(graph, { y }, feeds)).y.data as Float32Array;
    const matrix = elements(blocks, format);
    let [difference, size] = [0, 0];
    for (let i = 0; i < found.length; i++) {
      const [at, row] = [Math.floor(i / rows) * columns, (i % rows) * columns];
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += (data[at + k] as number) * (matrix[row + k] as number);
      difference += (sum - (found[i] as number)) ** 2;
      size += sum ** 2;
    }
    expect(Math.sqrt(difference / size)).toBeLessThan(0.01);
  },
);

test.each(formats)("gather returns exact rows: $bits bits, $offset, blocks of $blockSize", async (format) => {
  const blocks = randomBlocks(format, new Random(format.blockSize + format.bits));
  const graph = new Graph();
  const ids = graph.input("ids", "int64", ["batch", "n"]);
  const y = new BlockMatrix({ name: "w", rows, columns, format, load: async () => blocks }).gather(ids);
  expect(y.shape).toEqual(["batch", "n", columns]);
  const wanted = [0, rows - 1, 7, 7];
  const feeds = { ids: ndarray("int64", [2, 2], BigInt64Array.from(wanted, BigInt)) };
  const table = Float32Array.from(elements(blocks, format));
  const found = (await evaluate(graph, { y }, feeds)).y.data as Float32Array;
  const expected = wanted.flatMap((row) => [...table.subarray(row * columns, (row + 1) * columns)]);
  expect([...found]).toEqual(expected);
  expect(dequantizeBlocks(blocks, format, columns)).toEqual(table);
});

test.each(formats)("matrices are concatenated: $bits bits, $offset, blocks of $blockSize", (format) => {
  const parts = [1, 2].map((seed) => randomBlocks(format, new Random(seed)));
  const expected = parts.flatMap((part) => [...elements(part, format)]);
  expect([...elements(concatBlocks(parts), format)]).toEqual(expected);
});

test("rows that are not a multiple of the block size are rejected", () => {
  const graph = new Graph();
  const format = { bits: 4, minima: true, blockSize: 32 } as const;
  const matrix = new BlockMatrix({ name: "up", rows: 8, columns: 48, format, load: () => Promise.reject() });
  const [x, ids] = [graph.input("x", "float32", [2, 48]), graph.input("ids", "int64", [2])];
  const message = 'in mlp: "up": rows of 48 elements are not a multiple of the block size 32';
  expect(() => graph.scope("mlp", () => matrix.matmul(x))).toThrow(message);
  expect(() => graph.scope("mlp", () => matrix.gather(ids))).toThrow(message);
  expect(() => quantizeBlocks(new Float32Array(48), 48, { bits: 8, blockSize: 32 })).toThrow(
    "Rows of 48 elements are not a multiple of the 8-bit block size 32",
  );
});

const normals = (count: number, random: Random) => Float32Array.from({ length: count }, () => random.normal());

const denseOf = (values: Float32Array, width: number) =>
  new DenseMatrix({ name: "w", rows: values.length / width, columns: width, readFloat32: async () => values });

/** The values after rounding to 4 bits. */
function rounded(values: Float32Array, width: number, blockSize: BlockSize): Float32Array {
  const format = { bits: 4, blockSize } as const;
  return dequantizeBlocks(quantizeBlocks(values, width, format), format, width);
}

test("the rounding error is at most one step of the block", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 70 }),
      fc.constantFrom(16 as const, 32 as const),
      fc.nat(),
      (rows, columns, blockSize, seed) => {
        const values = normals(rows * columns, new Random(seed));
        const back = rounded(values, columns, blockSize);
        for (let i = 0; i < values.length; i++) {
          const row = Math.floor(i / columns);
          const start = i - ((i % columns) % blockSize);
          const block = values.subarray(start, Math.min(start + blockSize, (row + 1) * columns));
          const step = (Math.max(0, ...block) - Math.min(0, ...block)) / 15;
          // The zero point is rounded too, so an end of the range may be cut by half a step.
          expect(Math.abs((back[i] as number) - (values[i] as number))).toBeLessThanOrEqual(step * 1.001);
        }
      },
    ),
  );
});

test("values on the grid of their block are unchanged", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => ((i % 16) - 5) / 4);
  expect(rounded(values, 32, 32)).toEqual(values);
  expect(rounded(new Float32Array(32), 32, 32)).toEqual(new Float32Array(32));
});

test("the product matches that with the dequantized matrix, up to the rounding of activations to 8 bits", async () => {
  for (const columns of [64, 172]) {
    const random = new Random(columns);
    const rows = 24;
    const matrix = BlockMatrix.round(denseOf(normals(rows * columns, random), columns), { bits: 4, blockSize: 32 });
    const x = ndarray("float32", [3, columns], normals(3 * columns, random));
    const graph = new Graph();
    const y = matrix.matmul(graph.input("x", "float32", ["n", columns]));
    const found = (await evaluate(graph, { y }, { x })).y.data as Float32Array;
    const dense = await matrix.readFloat32();
    for (let i = 0; i < 3; i++) {
      for (let row = 0; row < rows; row++) {
        let sum = 0;
        for (let k = 0; k < columns; k++) {
          sum += (x.data[i * columns + k] as number) * (dense[row * columns + k] as number);
        }
        expect(Math.abs((found[i * rows + row] as number) - sum)).toBeLessThan(0.01 * columns ** 0.5 * 3);
      }
    }
  }
});

test("a matrix is read once per model and not kept afterwards", async () => {
  const graph = new Graph();
  let reads = 0;
  const readFloat32 = async () => {
    reads++;
    return new Float32Array(8 * 64).fill(1);
  };
  const dense = new DenseMatrix({ name: "w", rows: 8, columns: 64, readFloat32 });
  const y = BlockMatrix.round(dense, { bits: 4, blockSize: 32 }).matmul(graph.input("x", "float32", [1, 64]));
  const x = ndarray("float32", [1, 64], new Float32Array(64).fill(1));
  for (const model of [1, 2]) {
    const found = await evaluate(graph, { y }, { x });
    expect(found.y.data).toEqual(new Float32Array(8).fill(64));
    expect(reads).toBe(model);
  }
});

test("a matrix whose width differs from the operand's is rejected", () => {
  const graph = new Graph();
  const dense = new DenseMatrix({ name: "up", rows: 8, columns: 64, readFloat32: () => Promise.reject() });
  const x = graph.input("x", "float32", [2, 32]);
  const kinds = [
    dense,
    BlockMatrix.round(dense, { bits: 4, blockSize: 32 }),
    new Int8Matrix(dense),
    new TiledInt8Matrix({ name: "up", rows: 8, columns: 64, tile: 8, load: () => Promise.reject() }),
  ];
  for (const matrix of kinds) {
    expect(() => graph.scope("mlp", () => matrix.matmul(x))).toThrow(
      'in mlp: matmul of "x" float32 [2, 32] with "up" [8, 64]: expected float32 [..., 64]',
    );
  }
});
