import { expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { Graph } from "../../../src/tensor/graph.ts";
import {
  type BlockFormat,
  type Blocks,
  elementsOf,
  gatherBlocks,
  matmulBlocks,
  stackBlocks,
} from "../../../src/tensor/quant/blocks.ts";
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
    const y = matmulBlocks(input, "w", { rows, columns }, { format, load: async () => blocks });
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

test.each(formats)("rows of a table, $bits bits, $offset, blocks of $blockSize: exact", async (format) => {
  const blocks = randomBlocks(format, new Random(format.blockSize + format.bits));
  const graph = new Graph();
  const ids = graph.input("ids", "int64", ["batch", "n"]);
  const y = gatherBlocks(ids, "w", { rows, columns }, { format, load: async () => blocks });
  expect(y.shape).toEqual(["batch", "n", columns]);
  const wanted = [0, rows - 1, 7, 7];
  const feeds = { ids: ndarray("int64", [2, 2], BigInt64Array.from(wanted, BigInt)) };
  const table = Float32Array.from(elements(blocks, format));
  const found = (await evaluate(graph, { y }, feeds)).y.data as Float32Array;
  const expected = wanted.flatMap((row) => [...table.subarray(row * columns, (row + 1) * columns)]);
  expect([...found]).toEqual(expected);
  expect(elementsOf(blocks, format, columns)).toEqual(table);
});

test.each(formats)("rows of several matrices are stacked: $bits bits, $offset, blocks of $blockSize", (format) => {
  const parts = [1, 2].map((seed) => randomBlocks(format, new Random(seed)));
  const expected = parts.flatMap((part) => [...elements(part, format)]);
  expect([...elements(stackBlocks(parts), format)]).toEqual(expected);
});

test("rows that are no whole blocks are named", () => {
  const graph = new Graph();
  const source = { format: { bits: 4, minima: false, blockSize: 32 }, load: () => Promise.reject() } as const;
  const x = graph.input("x", "float32", [2, 48]);
  expect(() => graph.scope("mlp", () => matmulBlocks(x, "up", { rows: 8, columns: 48 }, source))).toThrow(
    'in mlp: "up": rows of 48 elements are no whole blocks of 32',
  );
});
