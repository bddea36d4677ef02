/** Reductions over axes, and the softmax family. */
import { single, type Value } from "../graph.ts";
import { detach, exp, log } from "./elementwise.ts";

interface ReduceOptions {
  /** Keep the reduced axes with size 1, so that the result broadcasts against the operand. @default true */
  keep?: boolean;
}

function reduce(op: string, x: Value, axes: readonly number[], { keep = true }: ReduceOptions): Value {
  const at = axes.map((axis) => (axis < 0 ? axis + x.rank : axis));
  if (at.some((axis) => axis < 0 || axis >= x.rank)) {
    throw new RangeError(`${x.graph.where()}${op} of ${x} over axes [${axes.join(", ")}]: axis out of range`);
  }
  const shape = keep ? x.shape.map((dim, i) => (at.includes(i) ? 1 : dim)) : x.shape.filter((_, i) => !at.includes(i));
  const attributes = { keepdims: Number(keep) };
  const inputs = [x, x.graph.integers(at.toSorted((a, b) => a - b))];
  return single(x.graph.node(op, inputs, [{ dtype: x.dtype, shape }], { attributes, staticArguments: { axes: at } }));
}

export const reduceSum = (x: Value, axes: readonly number[], options: ReduceOptions = {}) =>
  reduce("ReduceSum", x, axes, options);
export const reduceMean = (x: Value, axes: readonly number[], options: ReduceOptions = {}) =>
  reduce("ReduceMean", x, axes, options);
export const reduceMax = (x: Value, axes: readonly number[], options: ReduceOptions = {}) =>
  reduce("ReduceMax", x, axes, options);
export const reduceMin = (x: Value, axes: readonly number[], options: ReduceOptions = {}) =>
  reduce("ReduceMin", x, axes, options);

/** Index of the largest element along the last axis: x [..., n] -> int64 [...]. It has no gradient. */
export function argMax(x: Value): Value {
  const types = [{ dtype: "int64" as const, shape: x.shape.slice(0, -1) }];
  return single(x.graph.node("ArgMax", [x], types, { attributes: { axis: x.rank - 1, keepdims: 0 } }));
}

/** exp(x) / sum(exp(x)) along the last axis. */
export function softmax(x: Value): Value {
  return single(x.graph.node("Softmax", [x], [{ dtype: x.dtype, shape: x.shape }], { attributes: { axis: -1 } }));
}

/** log(softmax(x)) along the last axis. */
export function logSoftmax(x: Value): Value {
  return single(x.graph.node("LogSoftmax", [x], [{ dtype: x.dtype, shape: x.shape }], { attributes: { axis: -1 } }));
}

/**
 * log(sum(exp(x))) along the last axis: x [..., n] -> [..., 1]. The maximum is subtracted first to avoid overflow.
 * ONNX's ReduceLogSumExp is slower than these operators.
 */
export function logSumExp(x: Value): Value {
  const largest = detach(reduceMax(x, [-1]));
  return log(reduceSum(exp(x.sub(largest)), [-1])).add(largest);
}
