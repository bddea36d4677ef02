import { describe, expect, test } from "vitest";
import { Graph } from "../../src/tensor/graph.ts";
import { rotaryEmbedding } from "../../src/tensor/ops/attention.ts";
import { conv2d } from "../../src/tensor/ops/convolution.ts";
import { where } from "../../src/tensor/ops/elementwise.ts";
import { gather, gatherElements, putRows } from "../../src/tensor/ops/gather.ts";
import { concat, expand, reshape, slice, split, transpose } from "../../src/tensor/ops/layout.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { layerNorm, rmsNorm } from "../../src/tensor/ops/normalization.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";

describe("operators reject invalid operands when the graph is built, naming the values and the scope", () => {
  const graph = new Graph();
  const a = graph.input("a", "float32", ["batch", 4]);
  const b = graph.input("b", "float32", ["other", 4]);
  const square = graph.input("square", "float32", [3, 3]);
  const ids = graph.input("ids", "int64", ["batch"]);
  const five = graph.input("five", "float32", [5]);
  const cases: [string, () => unknown, string][] = [
    ["sum", () => a.add(b), 'Add of "a" float32 [batch, 4] and "b" float32 [other, 4]: the shapes do not broadcast'],
    ["types", () => ids.mul(graph.scalar(2)), 'Mul of "ids" int64 [batch] and "scalar" float32 []: the types differ'],
    [
      "product",
      () => matmul(a, square),
      'matmul of "a" float32 [batch, 4] and "square" float32 [3, 3]: the inner sizes 4 and 3 differ',
    ],
    ["vector", () => matmul(a, five), "both operands need at least two axes"],
    ["reshape", () => reshape(a, ["batch", 5]), 'reshape of "a" float32 [batch, 4] to [batch, 5]'],
    ["transpose", () => transpose(a, [0, 0]), "[0, 0] is not a permutation of its axes"],
    ["slice", () => slice(a, 1, 2, 5), "slice 2..5 of axis 1"],
    ["split", () => split(a, 1, [1, 2]), "the sizes [1, 2] do not add up"],
    ["concat", () => concat([a, b], 1), 'concat of "a" float32 [batch, 4] and "b" float32 [other, 4] along axis 1'],
    ["expand", () => expand(square, [2, 3]), 'expand of "square" float32 [3, 3] to [2, 3]'],
    ["gather", () => gather(a, b), '"b" float32 [other, 4] must be int64 or int32'],
    ["gatherElements", () => gatherElements(a, ids), "all axes but the last equal"],
    ["putRows", () => putRows(a, ids, b), 'expected updates of shape [batch, 4], found "b" float32 [other, 4]'],
    ["norm", () => layerNorm(a, five, five, 1e-5), 'expected a parameter of shape [4], found "five" float32 [5]'],
    ["RMS norm", () => rmsNorm(a, five, 1e-5), 'expected a parameter of shape [4], found "five" float32 [5]'],
    ["reduction", () => reduceSum(a, [2]), "over axes [2]: axis out of range"],
    [
      "rotary",
      () => rotaryEmbedding(a, ids, square, square, 2),
      '"a" float32 [batch, 4]: expected [batch, sequence, heads * headSize] for 2 heads and 3 angles',
    ],
    ["condition", () => where(a, a, a), "expected a bool condition"],
    ["convolution", () => conv2d(square, square, undefined), "must have four axes, the last three of numeric size"],
    ["axis", () => a.dim(2), '"a" float32 [batch, 4] has no axis 2'],
    ["size", () => a.size(0), '"a" float32 [batch, 4]: the size of axis 0 is symbolic'],
  ];
  test.each(cases)("%s", (_, build, message) => {
    expect(() => graph.scope("encoder", () => graph.scope("layer.3", build))).toThrow(message);
  });

  test("errors start with the scope", () => {
    expect(() => graph.scope("encoder", () => graph.scope("layer.3", () => a.add(b)))).toThrow(
      /^in encoder\.layer\.3: Add/,
    );
    expect(graph.where()).toBe("");
  });
});

test("names are unique; an input with a used name is rejected", () => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [1]);
  expect(() => graph.input("x", "float32", [1])).toThrow('The name "x" is already used in this graph');
  const sums = [x.add(x), x.add(x)].map(({ name }) => name);
  expect(new Set(sums).size).toBe(2);
});

test("the sizes of an input are names, not expressions", () => {
  expect(() => new Graph().input("x", "float32", ["2*batch"])).toThrow('Input "x": "2*batch" is not a valid size');
});

test("values of another graph are rejected", () => {
  const x = new Graph().input("x", "float32", [1]);
  const y = new Graph().input("y", "float32", [1]);
  expect(() => x.add(y)).toThrow('Add: input "y" belongs to another graph');
});

test("equal scalars share one constant", () => {
  const graph = new Graph();
  expect(graph.scalar(2)).toBe(graph.scalar(2));
  expect(graph.scalar(2)).not.toBe(graph.scalar(2, "int64"));
  expect(graph.integers([1, 2])).toBe(graph.integers([1, 2]));
});
