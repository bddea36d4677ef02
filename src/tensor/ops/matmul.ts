/** Matrix products. */

import { single, type Value } from "../graph.ts";
import { broadcastShapes, type Shape } from "../shapes.ts";

export interface MatmulOptions {
  /** Exchange the last two axes of the left operand first. */
  transA?: boolean;
  /** Exchange the last two axes of the right operand first; so weights can stay [out, in] as files hold them. */
  transB?: boolean;
  /** A factor of the product, free of charge (1 / sqrt(headSize) in attention). */
  scale?: number;
}

/** a [..., m, k] times b [..., k, n] -> [..., m, n]; the axes before the last two broadcast. */
export function matmul(a: Value, b: Value, options: MatmulOptions = {}): Value {
  const { transA = false, transB = false, scale = 1 } = options;
  const fail = (why: string): never => {
    const how = `${transA ? " (left transposed)" : ""}${transB ? " (right transposed)" : ""}`;
    throw new Error(`${a.graph.where()}matmul of ${a} and ${b}${how}: ${why}`);
  };
  if (a.rank < 2 || b.rank < 2) return fail("both operands need two axes or more");
  const [m, k] = lastTwo(a.shape, transA);
  const [k2, n] = lastTwo(b.shape, transB);
  if (k !== k2) return fail(`the inner sizes ${k} and ${k2} differ`);
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
  if (!batch || a.dtype !== b.dtype) return fail(batch ? "the types differ" : "the leading axes do not fit");
  const type = { dtype: a.dtype, shape: [...batch, m, n] };
  if (!transA && !transB && scale === 1) return single(a.graph.node("MatMul", [a, b], [type]));
  const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: scale } };
  return single(a.graph.node("FusedMatMul", [a, b], [type], { attributes, domain: "com.microsoft" }));
}

function lastTwo(shape: Shape, exchanged: boolean) {
  const [x, y] = shape.slice(-2) as [Shape[number], Shape[number]];
  return exchanged ? ([y, x] as const) : ([x, y] as const);
}
