import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { evaluate } from "../../../src/runtime/session.ts";
import { ndarray } from "../../../src/tensor/array.ts";
import { gradients } from "../../../src/tensor/grad/gradients.ts";
import { rules } from "../../../src/tensor/grad/rules.ts";
import { Graph, type Value } from "../../../src/tensor/graph.ts";
import { rotaryEmbedding } from "../../../src/tensor/ops/attention.ts";
import { conv2d } from "../../../src/tensor/ops/convolution.ts";
import * as ops from "../../../src/tensor/ops/elementwise.ts";
import { gather, gatherElements, putRows, scatterAddElements, scatterAddRows } from "../../../src/tensor/ops/gather.ts";
import { concat, expand, padZeros, reshape, slice, split, transpose } from "../../../src/tensor/ops/layout.ts";
import { matmul } from "../../../src/tensor/ops/matmul.ts";
import { batchNorm, layerNorm, rmsNorm } from "../../../src/tensor/ops/normalization.ts";
import {
  logSoftmax,
  logSumExp,
  reduceMax,
  reduceMean,
  reduceMin,
  reduceSum,
  softmax,
} from "../../../src/tensor/ops/reduce.ts";
import { expectGradients, spacedArray } from "../../helpers/finite-differences.ts";

const positive = (x: number) => Math.abs(x) + 0.5;
const int64 = (shape: number[], values: number[]) => ndarray("int64", shape, BigInt64Array.from(values, BigInt));

/** Shapes of one to three small axes. */
const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });
const runs = { numRuns: 6 };

const unary: Record<string, [(x: Value) => Value, ((x: number) => number)?]> = {
  Neg: [ops.neg],
  Abs: [ops.abs],
  Exp: [ops.exp],
  Log: [ops.log, positive],
  Sqrt: [ops.sqrt, positive],
  Sin: [ops.sin],
  Cos: [ops.cos],
  Tanh: [ops.tanh],
  Sigmoid: [ops.sigmoid],
  Erf: [ops.erf],
  Relu: [ops.relu],
  QuickGelu: [ops.silu],
  Gelu: [ops.gelu],
  Clip: [(x) => ops.clip(x, 0, 0.5), (x) => (Math.abs(x - 0.5) < 0.03 ? 0.4 : x)],
  Softmax: [softmax],
  LogSoftmax: [logSoftmax],
  logSumExp: [logSumExp],
};

describe("unary operators", () => {
  test.each(Object.keys(unary))("%s", async (name) => {
    const [build, domain] = unary[name] as [(x: Value) => Value, ((x: number) => number)?];
    await fc.assert(
      fc.asyncProperty(shapes, fc.nat(1000), fc.boolean(), async (shape, seed, named) => {
        await expectGradients({ shapes: [shape], build, seed, domain, named });
      }),
      runs,
    );
  });
});

const binary: Record<string, (a: Value, b: Value) => Value> = {
  Add: (a, b) => a.add(b),
  Sub: (a, b) => a.sub(b),
  Mul: (a, b) => a.mul(b),
  Div: (a, b) => a.div(b.mul(b).add(0.5)),
  Where: (a, b) => ops.where(ops.less(a, 0), a.mul(2), b),
};

describe("binary operators broadcast", () => {
  test.each(Object.keys(binary))("%s", async (name) => {
    const build = binary[name] as (a: Value, b: Value) => Value;
    await fc.assert(
      fc.asyncProperty(
        shapes,
        fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
        fc.nat(2),
        fc.nat(1000),
        async (shape, ones, drop, seed) => {
          const other = shape.map((dim, i) => (ones[i] ? 1 : dim)).slice(Math.min(drop, shape.length - 1));
          await expectGradients({ shapes: [shape, other], build, seed });
        },
      ),
      runs,
    );
  });
});

describe("matrix products", () => {
  test("every combination of transposes, with and without a batch", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          m: fc.integer({ min: 1, max: 3 }),
          k: fc.integer({ min: 1, max: 3 }),
          n: fc.integer({ min: 1, max: 3 }),
        }),
        fc.record({ transA: fc.boolean(), transB: fc.boolean(), scale: fc.constantFrom(1, 0.5) }),
        fc.constantFrom<[number[], number[]][]>(
          [[], []],
          [[2], []],
          [[2], [2]],
          [
            [2, 3],
            [1, 3],
          ],
          [[], [2]],
          [[2, 2], []],
        ),
        fc.nat(1000),
        async ({ m, k, n }, options, [batchA, batchB], seed) => {
          const a = [...batchA, ...(options.transA ? [k, m] : [m, k])];
          const b = [...batchB, ...(options.transB ? [n, k] : [k, n])];
          await expectGradients({ shapes: [a, b], build: (x, y) => matmul(x, y, options), seed });
        },
      ),
      { numRuns: 25 },
    );
  });

  test("a symbolic batch times one matrix", async () => {
    const build = (x: Value) =>
      matmul(x, x.graph.constant(ndarray("float32", [2, 3], Float32Array.of(1, 2, 3, -1, 0.5, 2))), { transB: true });
    await expectGradients({ shapes: [[2, 2, 3]], build, named: true });
  });
});

describe("layout", () => {
  const layout: Record<string, [number[][], (...x: Value[]) => Value]> = {
    Reshape: [[[2, 3, 4]], (x) => reshape(x, [x.dim(0), 12])],
    Transpose: [[[2, 3, 4]], (x) => transpose(x, [2, 0, 1])],
    Slice: [[[2, 3, 4]], (x) => slice(x, 2, 1, 3)],
    Split: [
      [[2, 5]],
      (x) => {
        const [a, , c] = split(x, 1, [2, 1, 2]) as [Value, Value, Value];
        return a.mul(c);
      },
    ],
    Concat: [
      [
        [2, 3],
        [2, 1],
      ],
      (a, b) => concat([a, b, a.mul(2)], 1),
    ],
    Expand: [[[2, 1]], (x) => expand(x, [3, x.dim(0), 4])],
    Pad: [[[2, 3]], (x) => padZeros(x, 1, 1, 2)],
    Unsqueeze: [
      [[2, 3]],
      (x) =>
        x.graph.node(
          "Unsqueeze",
          [x, x.graph.integers([0])],
          [{ dtype: "float32", shape: [1, ...x.shape] }],
        )[0] as Value,
    ],
    Cast: [[[2]], (x) => ops.cast(ops.cast(x, "float64"), "float32")],
  };
  test.each(Object.keys(layout).flatMap((name) => [[name, false] as const, [name, true] as const]))(
    "%s (named sizes: %s)",
    async (name, named) => {
      const [shape, build] = layout[name] as [number[][], (...x: Value[]) => Value];
      await expectGradients({ shapes: shape, build, named });
    },
  );
});

describe("reductions", () => {
  const reductions = { ReduceSum: reduceSum, ReduceMean: reduceMean, ReduceMax: reduceMax, ReduceMin: reduceMin };
  test.each(Object.keys(reductions))("%s", async (name) => {
    const reduce = reductions[name as keyof typeof reductions];
    await fc.assert(
      fc.asyncProperty(
        fc.subarray([0, 1, 2], { minLength: 1 }),
        fc.boolean(),
        fc.boolean(),
        fc.nat(1000),
        async (axes, keep, named, seed) => {
          // Squared first, so that equal gradients of all elements do not pass by chance.
          await expectGradients({
            shapes: [[2, 3, 2]],
            values: spacedArray,
            build: (x) => reduce(x.mul(x).add(x), axes, { keep }),
            seed,
            named,
          });
        },
      ),
      runs,
    );
  });
});

describe("lookups", () => {
  test("Gather", async () => {
    const build = (x: Value) => gather(x, x.graph.constant(int64([2, 2], [0, 2, 2, 1])));
    await expectGradients({ shapes: [[3, 2]], build });
  });
  test("GatherElements", async () => {
    const build = (x: Value) => gatherElements(x, x.graph.constant(int64([2, 2], [0, 2, 1, 1])));
    await expectGradients({ shapes: [[2, 3]], build });
  });
  test("ScatterND adds rows", async () => {
    const build = (x: Value, u: Value) => scatterAddRows(x, x.graph.constant(int64([2], [1, 1])), u);
    await expectGradients({
      shapes: [
        [3, 2],
        [2, 2],
      ],
      build,
    });
  });
  test("ScatterND replaces rows", async () => {
    const build = (x: Value, u: Value) => putRows(x, x.graph.constant(int64([2], [2, 0])), u);
    await expectGradients({
      shapes: [
        [3, 2],
        [2, 2],
      ],
      build,
    });
  });
  test("ScatterElements adds elements", async () => {
    const build = (x: Value, u: Value) => scatterAddElements(x, x.graph.constant(int64([2, 2], [0, 2, 1, 1])), u);
    await expectGradients({
      shapes: [
        [2, 3],
        [2, 2],
      ],
      build,
    });
  });
});

describe("normalization and rotary embedding", () => {
  test("LayerNormalization", async () => {
    await expectGradients({ shapes: [[2, 2, 4], [4], [4]], build: (x, s, b) => layerNorm(x, s, b, 1e-2) });
  });
  test("SimplifiedLayerNormalization", async () => {
    await expectGradients({ shapes: [[2, 2, 4], [4]], build: (x, s) => rmsNorm(x, s, 1e-2) });
  });
  test("BatchNormalization", async () => {
    const build = (x: Value, scale: Value, bias: Value) => {
      const [mean, variance] = [
        [0.2, -0.1, 0.3],
        [1.5, 0.7, 2],
      ].map((values) => x.graph.constant(ndarray("float32", [3], Float32Array.from(values)))) as [Value, Value];
      return batchNorm(x, { scale, bias, mean, variance }, 1e-3);
    };
    await expectGradients({ shapes: [[2, 3, 2, 2], [3], [3]], build });
  });
  test("RotaryEmbedding", async () => {
    const build = (x: Value) => {
      const table = (f: (x: number) => number) =>
        x.graph.constant(
          ndarray(
            "float32",
            [5, 2],
            Float32Array.from({ length: 10 }, (_, i) => f(i * 0.7)),
          ),
        );
      return rotaryEmbedding(x, x.graph.constant(int64([1, 3], [0, 2, 4])), table(Math.cos), table(Math.sin), 2);
    };
    await expectGradients({ shapes: [[1, 3, 8]], build });
  });
});

describe("Conv", () => {
  test("strides, paddings and groups", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          size: fc.integer({ min: 3, max: 6 }),
          kernel: fc.integer({ min: 1, max: 3 }),
          stride: fc.integer({ min: 1, max: 2 }),
          pads: fc.tuple(fc.nat(1), fc.nat(1), fc.nat(1), fc.nat(1)),
          groups: fc.constantFrom(1, 2),
          named: fc.constant(false),
          seed: fc.nat(1000),
        }),
        async ({ size, kernel, stride, pads, groups, named, seed }) => {
          const build = (x: Value, w: Value, b: Value) => conv2d(x, w, b, { stride, pads, groups });
          await expectGradients({
            shapes: [[2, 2, size, size], [4, 2 / groups, kernel, kernel], [4]],
            build,
            named,
            seed,
          });
        },
      ),
      { numRuns: 8 },
    );
  });
});

test("every rule is checked against finite differences above", () => {
  const tested = new Set([
    ...Object.keys(unary),
    ...Object.keys(binary),
    ...[
      "MatMul",
      "FusedMatMul",
      "Reshape",
      "Transpose",
      "Slice",
      "Split",
      "Concat",
      "Expand",
      "Pad",
      "Unsqueeze",
      "Cast",
    ],
    ...[
      "ReduceSum",
      "ReduceMean",
      "ReduceMax",
      "ReduceMin",
      "Gather",
      "GatherElements",
      "ScatterND",
      "ScatterElements",
    ],
    ...["LayerNormalization", "SimplifiedLayerNormalization", "BatchNormalization", "RotaryEmbedding", "Conv"],
  ]);
  expect(Object.keys(rules).filter((op) => !tested.has(op))).toEqual([]);
});

test("the gradients of a value that is used twice are summed", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", []);
  const loss = x.mul(x).add(x.mul(3));
  const [dx] = gradients(loss, [x]) as [Value];
  const { dx: got } = await evaluate(graph, { dx }, { x: ndarray("float32", [], Float32Array.of(5)) });
  expect(got.data[0]).toBe(13);
});

test("a detached value is treated as a constant", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", []);
  const [dx] = gradients(x.mul(x).mul(ops.detach(x)), [x]) as [Value];
  const { dx: got } = await evaluate(graph, { dx }, { x: ndarray("float32", [], Float32Array.of(5)) });
  expect(got.data[0]).toBe(50);
});

test("errors name what cannot be differentiated", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [2]);
  const other = graph.input("other", "float32", []);
  const rounded = graph.node("Round", [x], [{ dtype: "float32", shape: [2] }])[0] as Value;
  expect(() => gradients(reduceSum(rounded, [0], { keep: false }), [x])).toThrow(/Round has no gradient rule/);
  expect(() => gradients(reduceSum(x, [0], { keep: false }), [other])).toThrow(/does not depend on "other"/);
  expect(() => gradients(x, [x])).toThrow(/The loss must be a float32 scalar/);
});

test("a custom gradient replaces the rules of the nodes between its inputs and its output", async () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [3]);
  const type = { dtype: x.dtype, shape: x.shape };
  const [rounded] = graph.node("Round", [x], [type]);
  if (!rounded) throw new Error("no output");
  expect(() => gradients(reduceSum(rounded, [0], { keep: false }), [x])).toThrow("Round has no gradient rule");
  const [y] = graph.node("Neg", [rounded], [type], { gradient: { inputs: [x], rule: (g) => [g.mul(-1)] } });
  const loss = reduceSum((y ?? x).mul(graph.input("g", "float32", [3])).add(x), [0], { keep: false });
  const [dx] = gradients(loss, [x]);
  const feeds = {
    x: ndarray("float32", [3], Float32Array.of(0.4, 1.6, -2.2)),
    g: ndarray("float32", [3], Float32Array.of(1, 2, 3)),
  };
  const { found } = await evaluate(graph, { found: dx ?? x }, feeds);
  expect(found.data).toEqual(Float32Array.of(0, -1, -2));
});
