/** Operators that rearrange elements: reshape, transpose, slice, split, concat, expand, pad. */
import { type Graph, single, type Value } from "../graph.ts";
import {
  addDims,
  broadcastShapes,
  type Dim,
  formatShape,
  productOf,
  type Shape,
  sameShape,
  subDims,
  termsOf,
} from "../shapes.ts";
import { cast } from "./elementwise.ts";

/** Reshapes; `shape` may contain symbolic sizes. */
export function reshape(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  if (productOf(x.shape) !== productOf(shape)) {
    throw new Error(`${x.graph.where()}reshape of ${x} to ${formatShape(shape)}: the number of elements differs`);
  }
  const types = [{ dtype: x.dtype, shape }];
  if (shape.includes(0)) {
    return single(x.graph.node("Reshape", [x, shapeTensor(x.graph, shape)], types, { attributes: { allowzero: 1 } }));
  }
  return single(x.graph.node("Reshape", [x, reshapeTarget(x, shape)], types));
}

/** In ONNX, 0 copies a size of the input and -1 infers one; only shapes that need more are computed at run time. */
function reshapeTarget(x: Value, shape: Shape): Value {
  const target = shape.map((dim, i) => (typeof dim === "number" ? dim : dim === x.shape[i] ? 0 : -1));
  return target.filter((dim) => dim === -1).length <= 1 ? x.graph.integers(target) : shapeTensor(x.graph, shape);
}

/** The shape at run time, as a one-dimensional int64 value. */
function shapeTensor(graph: Graph, shape: Shape): Value {
  if (shape.every((dim) => typeof dim === "number")) return graph.integers(shape as number[]);
  return concat(
    shape.map((dim) => dimTensor(graph, dim)),
    0,
  );
}

/** A size at run time, int64 [1]: a sum of products of input sizes. */
function dimTensor(graph: Graph, dim: Dim): Value {
  if (typeof dim === "number") return graph.integers([dim]);
  const terms = termsOf(dim).map(({ coefficient, names }) => {
    const factors = names.map((name) => inputSize(graph, name));
    if (coefficient !== 1 || factors.length === 0) factors.push(graph.integers([coefficient]));
    return factors.reduce((product, factor) => product.mul(factor));
  });
  return terms.reduce((sum, term) => sum.add(term));
}

/** A size as a float32 scalar. */
export function dimScalar(graph: Graph, dim: Dim): Value {
  if (typeof dim === "number") return graph.scalar(dim);
  return cast(reshape(dimTensor(graph, dim), []), "float32");
}

function inputSize(graph: Graph, name: string): Value {
  for (const input of graph.inputs) {
    const axis = input.shape.indexOf(name);
    if (axis < 0) continue;
    const attributes = { start: axis, end: axis + 1 };
    return single(graph.node("Shape", [input], [{ dtype: "int64", shape: [1] }], { attributes }));
  }
  throw new Error(`No input of the graph has the size "${name}"`);
}

/** Permutes the axes: axis i of the result is axis `order[i]` of `x`. */
export function transpose(x: Value, order: readonly number[]): Value {
  if (order.length !== x.rank || new Set(order).size !== x.rank || order.some((axis) => axis < 0 || axis >= x.rank)) {
    throw new Error(`${x.graph.where()}transpose of ${x}: [${order.join(", ")}] is not a permutation of its axes`);
  }
  const shape = order.map((axis) => x.dim(axis));
  return single(x.graph.node("Transpose", [x], [{ dtype: x.dtype, shape }], { attributes: { perm: order } }));
}

/** Elements `start` to `end` (exclusive) along an axis; both may be symbolic. @param end @default the size of the axis */
export function slice(x: Value, axis: number, start: Dim, end: Dim = x.dim(axis)): Value {
  const at = axis < 0 ? axis + x.rank : axis;
  const size = x.dim(at);
  const length = subDims(end, start);
  const outside = typeof start === "number" && typeof end === "number" && (start < 0 || end < start);
  if (outside || (typeof size === "number" && typeof end === "number" && end > size)) {
    throw new RangeError(`${x.graph.where()}slice ${start}..${end} of axis ${at} of ${x}: out of range`);
  }
  if (start === 0 && end === size) return x;
  const { graph } = x;
  const shape = x.shape.map((dim, i) => (i === at ? length : dim));
  const bounds = [dimTensor(graph, start), dimTensor(graph, end), graph.integers([at])];
  return single(
    graph.node("Slice", [x, ...bounds], [{ dtype: x.dtype, shape }], { staticArguments: { axes: [at], start, end } }),
  );
}

/** Splits an axis into parts of the given sizes. */
export function split(x: Value, axis: number, sizes: readonly Dim[]): Value[] {
  const at = axis < 0 ? axis + x.rank : axis;
  if (sizes.reduce<Dim>(addDims, 0) !== x.dim(at)) {
    throw new Error(
      `${x.graph.where()}split of ${x} along axis ${at}: the sizes [${sizes.join(", ")}] do not add up to the axis`,
    );
  }
  const types = sizes.map((size) => ({ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === at ? size : dim)) }));
  return x.graph.node("Split", [x, shapeTensor(x.graph, sizes)], types, { attributes: { axis: at } });
}

/** Concatenates values along an axis; all other axes must be equal. */
export function concat(parts: readonly Value[], axis: number): Value {
  const [first] = parts;
  if (!first) throw new Error("concat needs at least one value");
  if (parts.length === 1) return first;
  const at = axis < 0 ? axis + first.rank : axis;
  for (const part of parts) {
    const fits = part.rank === first.rank && part.shape.every((dim, i) => i === at || dim === first.shape[i]);
    if (!fits || part.dtype !== first.dtype) {
      throw new Error(
        `${first.graph.where()}concat of ${first} and ${part} along axis ${at}: the types or other axes differ`,
      );
    }
  }
  const joined = parts.reduce<Dim>((sum, part) => addDims(sum, part.dim(at)), 0);
  const shape = first.shape.map((dim, i) => (i === at ? joined : dim));
  return single(first.graph.node("Concat", parts, [{ dtype: first.dtype, shape }], { attributes: { axis: at } }));
}

/** Broadcasts to `shape`. */
export function expand(x: Value, shape: Shape): Value {
  if (sameShape(x.shape, shape)) return x;
  const result = broadcastShapes(x.shape, shape);
  if (!result || !sameShape(result, shape)) {
    throw new Error(`${x.graph.where()}expand of ${x} to ${formatShape(shape)}: the shape does not broadcast`);
  }
  return single(x.graph.node("Expand", [x, shapeTensor(x.graph, shape)], [{ dtype: x.dtype, shape }]));
}

/** Pads an axis with `before` zeros at the start and `after` zeros at the end. */
export function padZeros(x: Value, axis: number, before: Dim, after: Dim): Value {
  const { graph } = x;
  const shape = x.shape.map((dim, i) => (i === axis ? addDims(addDims(dim, before), after) : dim));
  const pads = shapeTensor(graph, [before, after]);
  const inputs = [x, pads, graph.scalar(0), graph.integers([axis])];
  const staticArguments = { axes: [axis], start: before, end: addDims(before, x.dim(axis)) };
  const attributes = { mode: "constant" };
  return single(graph.node("Pad", inputs, [{ dtype: x.dtype, shape }], { attributes, staticArguments }));
}

/** Zeros of a shape that may contain symbolic sizes. */
export function zerosOf(graph: Graph, shape: Shape): Value {
  return expand(graph.scalar(0), shape);
}
