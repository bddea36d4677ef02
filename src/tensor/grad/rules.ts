/**
 * The gradient rule of each operator: maps the gradient of its output to the gradients of its inputs.
 *
 * A rule may ignore broadcasting (`gradients` sums over broadcast axes) and return gradients that are not needed (unused nodes are
 * never written into a model). `undefined` marks an input without a gradient, such as an index.
 */
import type { Node, Value } from "../graph.ts";
import { rotaryEmbedding } from "../ops/attention.ts";
import { convBiasGradient, convInputGradient, convWeightGradient } from "../ops/convolution.ts";
import { cast, cos, equal, erf, exp, less, neg, sigmoid, sin, sqrt, where } from "../ops/elementwise.ts";
import { gather, gatherElements, putRows, scatterAddElements, scatterAddRows } from "../ops/gather.ts";
import { concat, dimScalar, expand, padZeros, reshape, slice, transpose, zerosOf } from "../ops/layout.ts";
import { matmul } from "../ops/matmul.ts";
import { reduceMean, reduceSum } from "../ops/reduce.ts";
import { addDims, productOf, subDims } from "../shapes.ts";

/** (gradients of the outputs, inputs, node) -> gradients of the inputs. */
export type Rule = (g: readonly Value[], inputs: readonly Value[], node: Node) => (Value | undefined)[];

type One = (g: Value, x: Value, y: Value, node: Node) => Value;
type Two = (g: Value, a: Value, b: Value, y: Value) => (Value | undefined)[];

const output = (node: Node) => node.outputs[0] as Value;
const one =
  (rule: One): Rule =>
  ([g], [x, ...rest], node) => [rule(g as Value, x as Value, output(node), node), ...rest.map(() => undefined)];
const two =
  (rule: Two): Rule =>
  ([g], [a, b], node) =>
    rule(g as Value, a as Value, b as Value, output(node));

const zero = (x: Value) => x.graph.scalar(0);
const last = (x: Value) => [x.rank - 1];

// Elements that are tied for the extremum share its gradient equally.
const extremum = one((g, x, y, node) => {
  const hits = cast(equal(x, keepAxes(y, x, node)), "float32");
  const count = reduceSum(hits, reducedAxes(node));
  return hits.mul(keepAxes(g, x, node).div(count));
});

export const rules: Readonly<Record<string, Rule>> = {
  Add: two((g) => [g, g]),
  Sub: two((g) => [g, neg(g)]),
  Mul: two((g, a, b) => [g.mul(b), g.mul(a)]),
  Div: two((g, _, b, y) => [g.div(b), neg(g.mul(y).div(b))]),
  Neg: one((g) => neg(g)),
  Abs: one((g, x) => where(less(x, 0), neg(g), g)),
  Exp: one((g, _, y) => g.mul(y)),
  Log: one((g, x) => g.div(x)),
  Sqrt: one((g, _, y) => g.div(y.mul(2))),
  Sin: one((g, x) => g.mul(cos(x))),
  Cos: one((g, x) => neg(g.mul(sin(x)))),
  Tanh: one((g, _, y) => g.mul(neg(y.mul(y)).add(1))),
  Sigmoid: one((g, _, y) => g.mul(y).mul(neg(y).add(1))),
  Erf: one((g, x) => g.mul(exp(neg(x.mul(x))).mul(2 / Math.sqrt(Math.PI)))),
  Relu: one((g, x) => where(less(zero(x), x), g, zero(x))),
  // x * sigmoid(x)
  QuickGelu: one((g, x, y) => {
    const s = sigmoid(x);
    return g.mul(y.add(s.sub(s.mul(y))));
  }),
  // x * Phi(x): Phi(x) + x * phi(x)
  Gelu: one((g, x) => {
    const cumulative = erf(x.mul(Math.SQRT1_2)).mul(0.5).add(0.5);
    const density = exp(x.mul(x).mul(-0.5)).mul(1 / Math.sqrt(2 * Math.PI));
    return g.mul(cumulative.add(x.mul(density)));
  }),
  Clip: ([g], [x, low, high]) => [
    where(
      less(low as Value, x as Value),
      where(less(x as Value, high as Value), g as Value, zero(g as Value)),
      zero(g as Value),
    ),
    undefined,
    undefined,
  ],
  Cast: one((g, x) => cast(g, x.dtype)),
  Where: ([g], [condition]) => {
    const [gradient, holds] = [g as Value, condition as Value];
    return [undefined, where(holds, gradient, zero(gradient)), where(holds, zero(gradient), gradient)];
  },

  MatMul: two((g, a, b) => {
    return [matmul(g, b, { transB: true }), rightGradient(g, a, b, { transA: false, transB: false, scale: 1 })];
  }),
  FusedMatMul: ([g], [a, b], node) => {
    const { transA, transB, scale } = fusedOptions(node);
    const [gradient, left, right] = [g as Value, a as Value, b as Value];
    const dLeft = transA
      ? matmul(right, gradient, { transA: transB, transB: true, scale })
      : matmul(gradient, right, { transB: !transB, scale });
    return [dLeft, rightGradient(gradient, left, right, { transA, transB, scale })];
  },

  Reshape: one((g, x) => reshape(g, x.shape)),
  Unsqueeze: one((g, x) => reshape(g, x.shape)),
  Transpose: one((g, _x, _y, node) => {
    const order = node.attributes.perm as readonly number[];
    return transpose(
      g,
      order.map((_, axis) => order.indexOf(axis)),
    );
  }),
  Expand: one((g) => g),
  Concat: ([g], inputs, node) => {
    const axis = node.attributes.axis as number;
    let start: ReturnType<Value["dim"]> = 0;
    return inputs.map((part) => {
      const end = addDims(start, part.dim(axis));
      const gradient = slice(g as Value, axis, start, end);
      start = end;
      return gradient;
    });
  },
  Split: (g, _inputs, node) => [concat(g, node.attributes.axis as number)],
  Slice: ([g], [x], node) => {
    const { axes = [], start = 0, end = 0 } = node.staticArguments;
    const axis = axes[0] ?? 0;
    return [padZeros(g as Value, axis, start, subDims((x as Value).dim(axis), end)), undefined, undefined, undefined];
  },
  Pad: ([g], _inputs, node) => {
    const { axes = [], start, end } = node.staticArguments;
    return [slice(g as Value, axes[0] ?? 0, start ?? 0, end)];
  },

  ReduceSum: one((g, x, _, node) => expand(keepAxes(g, x, node), x.shape)),
  ReduceMean: one((g, x, _, node) => {
    const count = productOf(reducedAxes(node).map((axis) => x.dim(axis)));
    return expand(keepAxes(g, x, node).div(dimScalar(x.graph, count)), x.shape);
  }),
  ReduceMax: extremum,
  ReduceMin: extremum,
  Softmax: one((g, _, y) => y.mul(g.sub(reduceSum(g.mul(y), last(y))))),
  LogSoftmax: one((g, _, y) => g.sub(exp(y).mul(reduceSum(g, last(y))))),

  Gather: ([g], [x, indices]) => {
    const table = x as Value;
    return [scatterAddRows(zerosOf(table.graph, table.shape), indices as Value, g as Value), undefined];
  },
  GatherElements: ([g], [x, indices]) => {
    const source = x as Value;
    return [scatterAddElements(zerosOf(source.graph, source.shape), indices as Value, g as Value), undefined];
  },
  ScatterND: ([g], [, column], node) => {
    const [gradient, index] = [g as Value, column as Value];
    const rows = reshape(index, index.shape.slice(0, -1));
    const updates = gather(gradient, rows);
    const replaced = node.attributes.reduction === "none";
    return [replaced ? putRows(gradient, rows, updates.mul(0)) : gradient, undefined, updates];
  },
  ScatterElements: ([g], [, indices]) => [g, undefined, gatherElements(g as Value, indices as Value)],

  LayerNormalization: ([g], [x, scale], node) => {
    const [, mean, inverse] = node.outputs as [Value, Value, Value];
    const [gradient, input] = [g as Value, x as Value];
    const normal = input.sub(mean).mul(inverse);
    const d = gradient.mul(scale as Value);
    const along = last(input);
    const dx = inverse.mul(d.sub(reduceMean(d, along)).sub(normal.mul(reduceMean(d.mul(normal), along))));
    return [dx, gradient.mul(normal), gradient];
  },
  SimplifiedLayerNormalization: ([g], [x, scale], node) => {
    const inverse = node.outputs[1] as Value;
    const [gradient, input] = [g as Value, x as Value];
    const normal = input.mul(inverse);
    const d = gradient.mul(scale as Value);
    return [inverse.mul(d.sub(normal.mul(reduceMean(d.mul(normal), last(input))))), gradient.mul(normal)];
  },
  // With fixed statistics, batch norm is an affine function of each channel.
  BatchNormalization: ([g], [x, scale, , mean, variance], node) => {
    const [gradient, input] = [g as Value, x as Value];
    const { float: eps } = node.attributes.epsilon as { float: number };
    const column = (v: Value) => reshape(v, [v.dim(0), ...input.shape.slice(2).map(() => 1)]);
    const deviation = sqrt(column(variance as Value).add(eps));
    const others = input.shape.map((_, axis) => axis).filter((axis) => axis !== 1);
    const sum = (v: Value) => reduceSum(v, others, { keep: false });
    const normal = input.sub(column(mean as Value)).div(deviation);
    return [gradient.mul(column(scale as Value)).div(deviation), sum(gradient.mul(normal)), sum(gradient)];
  },
  // The gradient is rotated by the negative angle.
  RotaryEmbedding: ([g], [, positions, cosines, sines], node) => {
    const heads = node.attributes.num_heads as number;
    const rotated = rotaryEmbedding(g as Value, positions as Value, cosines as Value, neg(sines as Value), heads);
    return [rotated, undefined, undefined, undefined];
  },
  Conv: ([g], inputs, node) => {
    const gradient = g as Value;
    const bias = inputs.length > 2 ? convBiasGradient(gradient) : undefined;
    return [convInputGradient(gradient, node), convWeightGradient(gradient, node), bias];
  },
};

function fusedOptions(node: Node): { transA: boolean; transB: boolean; scale: number } {
  const { transA, transB, alpha } = node.attributes;
  return { transA: transA === 1, transB: transB === 1, scale: (alpha as { float: number }).float };
}

/** The right operand's gradient. If one matrix is multiplied with a whole batch, the batch is merged into the inner axis. */
function rightGradient(
  g: Value,
  a: Value,
  b: Value,
  options: { transA: boolean; transB: boolean; scale: number },
): Value {
  const { transA, transB, scale } = options;
  const fold = b.rank === 2 && a.rank > 2 && !transA;
  const rows = (x: Value) => (fold ? reshape(x, [productOf(x.shape.slice(0, -1)), x.dim(-1)]) : x);
  const [left, gradient] = [rows(a), rows(g)];
  return transB
    ? matmul(gradient, left, { transA: true, transB: transA, scale })
    : matmul(left, gradient, { transA: !transA, scale });
}

/** The reduced axes of a reduction. */
function reducedAxes(node: Node): readonly number[] {
  return node.staticArguments.axes ?? [];
}

/** Reshapes a reduction of `x` (or its gradient) so that the reduced axes have size 1. */
function keepAxes(reduced: Value, x: Value, node: Node): Value {
  const axes = reducedAxes(node);
  return reshape(
    reduced,
    x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)),
  );
}
