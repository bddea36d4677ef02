/** Gather and scatter: select elements by index, or write to them. */
import { single, type Value } from "../graph.ts";
import { formatShape, type Shape, sameShape } from "../shapes.ts";

const isIndex = (value: Value) => value.dtype === "int64" || value.dtype === "int32";

/** Rows of a table: x [n, ...rest], indices of any shape -> [...indices, ...rest]. */
export function gather(x: Value, indices: Value): Value {
  if (!isIndex(indices)) throw new Error(`${x.graph.where()}gather from ${x}: ${indices} must be int64 or int32`);
  const shape = [...indices.shape, ...x.shape.slice(1)];
  return single(x.graph.node("Gather", [x, indices], [{ dtype: x.dtype, shape }], { attributes: { axis: 0 } }));
}

/** Selects elements along the last axis: x [..., n], indices [..., k] -> [..., k]. */
export function gatherElements(x: Value, indices: Value): Value {
  if (!isIndex(indices) || !sameShape(x.shape.slice(0, -1), indices.shape.slice(0, -1))) {
    throw new Error(
      `${x.graph.where()}gatherElements from ${x} at ${indices}: expected integer indices, and all axes but the last equal`,
    );
  }
  const attributes = { axis: x.rank - 1 };
  return single(
    x.graph.node("GatherElements", [x, indices], [{ dtype: x.dtype, shape: indices.shape }], { attributes }),
  );
}

/** Adds `updates` to the rows of `base` at `indices`; updates of repeated indices add up. */
export function scatterAddRows(base: Value, indices: Value, updates: Value): Value {
  return scatterRows(base, indices, updates, "add");
}

function scatterRows(base: Value, indices: Value, updates: Value, reduction: "add" | "none"): Value {
  const expected: Shape = [...indices.shape, ...base.shape.slice(1)];
  if (!isIndex(indices) || !sameShape(updates.shape, expected)) {
    throw new Error(
      `${base.graph.where()}scatter into rows of ${base}: expected updates of shape ${formatShape(expected)}, found ${updates}`,
    );
  }
  const { graph } = base;
  const column = single(
    graph.node("Unsqueeze", [indices, graph.integers([-1])], [{ dtype: indices.dtype, shape: [...indices.shape, 1] }]),
  );
  const type = { dtype: base.dtype, shape: base.shape };
  return single(graph.node("ScatterND", [base, column, updates], [type], { attributes: { reduction } }));
}

/** Replaces rows: base [n, ...rest], indices [k], updates [k, ...rest] -> [n, ...rest]. Indices must not repeat. */
export function putRows(base: Value, indices: Value, updates: Value): Value {
  return scatterRows(base, indices, updates, "none");
}

/** Adds `updates` [..., k] to `base` [..., n] at indices [..., k] along the last axis: the gradient of `gatherElements`. */
export function scatterAddElements(base: Value, indices: Value, updates: Value): Value {
  const type = { dtype: base.dtype, shape: base.shape };
  const attributes = { axis: base.rank - 1, reduction: "add" };
  return single(base.graph.node("ScatterElements", [base, indices, updates], [type], { attributes }));
}
