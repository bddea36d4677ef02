import fc from "fast-check";
import { expect, test } from "vitest";
import { evaluate, Session } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { gradients } from "../../../src/tensor/grad/gradients.ts";
import { Graph, type Value } from "../../../src/tensor/graph.ts";
import { tanh } from "../../../src/tensor/ops/elementwise.ts";
import { reduceSum } from "../../../src/tensor/ops/reduce.ts";
import { largestInt8Weight, thisCpu } from "../../../src/tensor/quant/cpu.ts";
import { DenseMatrix } from "../../../src/tensor/quant/dense.ts";
import { Int8Matrix, type Int8Options, quantizeRows } from "../../../src/tensor/quant/int8.ts";
import { joinTiles, TiledInt8Matrix } from "../../../src/tensor/quant/tiled-int8.ts";
import { Random } from "../../../src/tensor/random.ts";
import { isMissing } from "../../helpers/capabilities.ts";

interface Case {
  readonly x: Float32Array;
  /** [rows, columns]. */
  readonly matrix: Float32Array;
  /** What the product is weighted with in the loss, so that it is the product's gradient. */
  readonly g: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

const normals = (count: number, random: Random) => Float32Array.from({ length: count }, () => random.normal());

function example(tokens: number, rows: number, columns: number, seed: number): Case {
  const random = new Random(seed);
  return {
    x: normals(tokens * columns, random),
    matrix: normals(rows * columns, random),
    g: normals(tokens * rows, random),
    rows,
    columns,
  };
}

function build({ matrix, rows, columns }: Case, options: Int8Options = {}) {
  const graph = new Graph();
  const x = graph.input("x", "float32", ["batch", "sequence", columns]);
  const g = graph.input("g", "float32", ["batch", "sequence", rows]);
  const y = new Int8Matrix({ name: "w", rows, columns, readFloat32: async () => matrix }, options).matmul(x);
  const [dx] = gradients(reduceSum(y.mul(g), [0, 1, 2], { keep: false }), [x]);
  if (!dx) throw new Error("no gradient");
  return { graph, outputs: { y, dx } };
}

/** The product and its gradient with respect to x. */
async function run(given: Case, options: Int8Options = {}) {
  const { x, g, rows, columns } = given;
  const { graph, outputs } = build(given, options);
  const tokens = x.length / columns;
  const feeds = { x: ndarray("float32", [1, tokens, columns], x), g: ndarray("float32", [1, tokens, rows], g) };
  const found = await evaluate(graph, outputs, feeds, { device: "cpu", threads: 1 });
  return { y: found.y.data as Float32Array, dx: found.dx.data as Float32Array };
}

/** a [n, inner] times b, of which `at(k, j)` is an element -> [n, outer]. */
function exactProduct(a: Float32Array, inner: number, outer: number, at: (k: number, j: number) => number) {
  return Float64Array.from({ length: (a.length / inner) * outer }, (_, i) => {
    const row = Math.floor(i / outer) * inner;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += (a[row + k] as number) * at(k, i % outer);
    return sum;
  });
}

const exactForward = ({ x, matrix, rows, columns }: Case) =>
  exactProduct(x, columns, rows, (k, j) => matrix[j * columns + k] as number);
const exactBackward = ({ g, matrix, rows, columns }: Case) =>
  exactProduct(g, rows, columns, (k, j) => matrix[k * columns + j] as number);

const largest = (values: Iterable<number>) => {
  let found = 0;
  for (const value of values) found = Math.max(found, Math.abs(value));
  return found;
};

/**
 * Each element of a row is off by at most half a step of the row, each weight by half a step of its column: with the sums
 * of magnitudes, a bound for every element of the product that no rounding to 8 bits may exceed.
 */
function bound(a: Float32Array, inner: number, outer: number, at: (k: number, j: number) => number) {
  const weightSteps = Array.from({ length: outer }, (_, j) => {
    return largest(Array.from({ length: inner }, (_, k) => at(k, j))) / largestInt8Weight(thisCpu());
  });
  return Float64Array.from({ length: (a.length / inner) * outer }, (_, i) => {
    const j = i % outer;
    const row = a.subarray(Math.floor(i / outer) * inner, (Math.floor(i / outer) + 1) * inner);
    const [step, weightStep] = [largest(row) / 127, weightSteps[j] as number];
    let sum = 0;
    row.forEach((value, k) => {
      sum += (Math.abs(at(k, j)) * step + Math.abs(value) * weightStep + (step * weightStep) / 2) / 2;
    });
    return sum * 1.001 + 1e-6;
  });
}

function expectWithin(found: Float32Array, exact: Float64Array, bounds: Float64Array) {
  const outside = [...found].findIndex(
    (value, i) => !(Math.abs(value - (exact[i] as number)) <= (bounds[i] as number)),
  );
  expect(outside, `element ${outside}: ${found[outside]} instead of ${exact[outside]}`).toBe(-1);
}

function cosine(a: ArrayLike<number>, b: ArrayLike<number>) {
  const dot = (x: ArrayLike<number>, y: ArrayLike<number>) =>
    Array.from(x).reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

const sizes = { tokens: fc.integer({ min: 1, max: 5 }), inner: fc.integer({ min: 1, max: 200 }), seed: fc.nat() };

test("the errors of product and gradient are within the bounds of rounding both operands to 8 bits", async () => {
  await fc.assert(
    fc.asyncProperty(sizes.tokens, sizes.inner, sizes.inner, sizes.seed, async (tokens, rows, columns, seed) => {
      const given = example(tokens, rows, columns, seed);
      const { x, g, matrix } = given;
      const { y, dx } = await run(given);
      expectWithin(
        y,
        exactForward(given),
        bound(x, columns, rows, (k, j) => matrix[j * columns + k] as number),
      );
      expectWithin(
        dx,
        exactBackward(given),
        bound(g, rows, columns, (k, j) => matrix[k * columns + j] as number),
      );
    }),
    { numRuns: 40 },
  );
});

test("with 16-bit activations only the rounding error of the weights remains, even with outliers", async () => {
  const given = example(6, 120, 90, 4);
  // One activation of each token is a hundred times the others.
  const x = given.x.map((value, i) => (i % 90 === 7 ? 300 : value));
  const weights = given.matrix.slice();
  const steps = largestInt8Weight(thisCpu());
  for (let row = 0; row < 120; row++) {
    const own = weights.subarray(row * 90, (row + 1) * 90);
    const step = largest(own) / steps;
    own.forEach((value, i) => {
      own[i] = Math.round(value / step) * step;
    });
  }
  const rounded = { ...given, x, matrix: weights };
  const exact = exactForward(rounded);
  const error = (y: Float32Array) => largest(y.map((value, i) => value - (exact[i] as number)));
  const [coarse, fine] = [await run(rounded), await run(rounded, { activations: 16 })];
  expect(error(fine.y)).toBeLessThan(error(coarse.y) / 100);
  expect(fine.dx).toEqual(coarse.dx);
});

test("product and gradient point in the direction of float32; a float32 gradient is exact", async () => {
  const given = example(8, 300, 400, 1);
  const { y, dx } = await run(given);
  expect(cosine(y, exactForward(given))).toBeGreaterThan(0.9995);
  expect(cosine(dx, exactBackward(given))).toBeGreaterThan(0.9995);
  const exact = await run(given, { backward: "float32" });
  expect(exact.y).toEqual(y);
  expect(cosine(exact.dx, exactBackward(given))).toBeGreaterThan(1 - 1e-9);
  expect(cosine(dx, exactBackward(given))).toBeLessThan(1 - 1e-6);
});

test("tokens and outputs of very different magnitude do not affect each other", async () => {
  const given = example(6, 120, 90, 2);
  const alone = await run(given);
  // Powers of two, so that only exponents differ.
  const powers = [-40, -12, 0, 3, 20, 40].map((exponent) => 2 ** exponent);
  const scaled = (values: Float32Array, width: number) =>
    values.map((value, i) => value * (powers[Math.floor(i / width)] as number));
  const { x, g, rows, columns, matrix } = given;
  const together = await run({ ...given, x: scaled(x, columns), g: scaled(g, rows) });
  expect(together.y).toEqual(scaled(alone.y, rows));
  expect(together.dx).toEqual(scaled(alone.dx, columns));
  const louder = await run({ ...given, matrix: matrix.map((value, i) => (i < columns ? value * 2 ** 10 : value)) });
  expect(louder.y).toEqual(alone.y.map((value, i) => (i % rows === 0 ? value * 2 ** 10 : value)));
});

test("a token of zeros and a matrix of zeros give zeros", async () => {
  const given = example(3, 20, 30, 3);
  const { y, dx } = await run({
    ...given,
    x: given.x.fill(0, 30, 60),
    g: given.g.fill(0, 20, 40),
  });
  expect(y.subarray(20, 40)).toEqual(new Float32Array(20));
  expect(dx.subarray(30, 60)).toEqual(new Float32Array(30));
  expect([...y, ...dx].every(Number.isFinite)).toBe(true);
  expect(y.subarray(0, 20)).not.toEqual(new Float32Array(20));
  const nothing = await run({ ...given, matrix: new Float32Array(600) });
  expect(largest([...nothing.y, ...nothing.dx])).toBe(0);
});

test("the sums do not overflow when every byte has the largest magnitude", async () => {
  const [rows, columns] = [16, 256];
  const ones = new Float32Array(columns).fill(1);
  const given = {
    x: ones,
    matrix: new Float32Array(rows * columns).fill(1),
    g: new Float32Array(rows).fill(1),
    rows,
    columns,
  };
  const { y, dx } = await run(given);
  for (const value of y) expect(value).toBeCloseTo(columns, 2);
  for (const value of dx) expect(value).toBeCloseTo(rows, 3);
});

test("the matrix is read once for the product and once for its gradient, and is not kept in float32", async () => {
  const given = example(2, 8, 16, 4);
  let reads = 0;
  const graph = new Graph();
  const x = graph.input("x", "float32", ["n", 16]);
  const readFloat32 = async () => {
    reads++;
    return given.matrix;
  };
  const y = new Int8Matrix({ name: "w", rows: 8, columns: 16, readFloat32 }).matmul(x);
  await (await Session.create(graph, { y }, { device: "cpu" })).close();
  expect(reads).toBe(1);
  const [dx] = gradients(reduceSum(y, [0, 1], { keep: false }), [x]);
  await (await Session.create(graph, { y, dx: dx ?? y }, { device: "cpu" })).close();
  expect(reads).toBe(3);
  expect(
    [...graph.initializers.values()].filter(({ value }) => value.rank === 2).map(({ value }) => value.dtype),
  ).toEqual(["int8", "int8"]);
});

test("tiles that cannot be combined, or in a graph that is not mapped, are multiplied as a plain int8 matrix", async () => {
  const { x, matrix } = example(2, 12, 16, 8);
  const whole = quantizeRows(matrix, 16);
  const dense = new DenseMatrix({ name: "d", rows: 12, columns: 16, readFloat32: async () => matrix });
  for (const mapped of [false, true]) {
    const graph = new Graph({ mapped });
    const input = graph.input("x", "float32", ["n", 16]);
    const tiled = new TiledInt8Matrix({ name: "t", rows: 12, columns: 16, tile: 12, load: async () => whole });
    const both = tiled.combine(input, [dense], ([a, b]) => (a as Value).mul(b as Value));
    const [left, right] = [tiled.matmul(input), dense.matmul(input)];
    const outputs = { both, left, right };
    const found = await evaluate(graph, outputs, { x: ndarray("float32", [2, 16], x) }, { device: "cpu" });
    for (const [i, value] of (found.both.data as Float32Array).entries()) {
      expect(value).toBeCloseTo((found.left.data[i] as number) * (found.right.data[i] as number), 4);
    }
  }
});

test.skipIf(isMissing("int8", largestInt8Weight(thisCpu()) >= 127))(
  "a product tile by tile is the product, however many tiles there are",
  async () => {
    const size = fc.integer({ min: 1, max: 12 });
    await fc.assert(
      fc.asyncProperty(size, size, size, fc.integer({ min: 1, max: 40 }), async (tokens, count, tile, columns) => {
        const { x, matrix } = example(tokens, count * tile, columns, 11);
        const rows = count * tile;
        const parts = Array.from({ length: count }, (_, i) =>
          quantizeRows(matrix.subarray(i * tile * columns, (i + 1) * tile * columns), columns),
        );
        const tiles = {
          tile,
          load: async () => ({
            bytes: Int8Array.from(parts.flatMap(({ bytes }) => [...bytes])),
            scales: Float32Array.from(parts.flatMap(({ scales }) => [...scales])),
          }),
        };
        const whole = quantizeRows(matrix, columns);
        expect(joinTiles(await tiles.load(), columns, tile)).toEqual(whole);
        const graph = new Graph({ mapped: true });
        const input = graph.input("x", "float32", ["batch", "sequence", columns]);
        const [a, b] = ["a", "b"].map((name) => new TiledInt8Matrix({ name, rows, columns, ...tiles })) as [
          TiledInt8Matrix,
          TiledInt8Matrix,
        ];
        const readFloat32 = async () => matrix;
        const plain = new Int8Matrix({ name: "c", rows, columns, readFloat32 }).matmul(input);
        const outputs = {
          tiled: b.matmul(input),
          plain,
          together: a.combine(input, [b], ([x, y]) => tanh(x as Value).mul(y as Value)),
          apart: tanh(plain).mul(plain),
        };
        const found = await evaluate(
          graph,
          outputs,
          { x: ndarray("float32", [1, tokens, columns], x) },
          { device: "cpu" },
        );
        for (const [inTiles, whole] of [
          [found.tiled, found.plain],
          [found.together, found.apart],
        ] as const) {
          expect(inTiles.shape).toEqual([1, tokens, rows]);
          for (const [i, value] of (whole.data as Float32Array).entries()) {
            expect(inTiles.data[i]).toBeCloseTo(value, 4);
          }
        }
      }),
      { numRuns: 25 },
    );
  },
);
