/** Matrix products. */
import { single, type Value } from "../graph.ts";
import { broadcastShapes, type Shape } from "../shapes.ts";

export interface MatmulOptions {
  /** Transpose the last two axes of the left operand first. @default false */
  transA?: boolean;
  /** Transpose the last two axes of the right operand first, as for weights [out, in]. @default false */
  transB?: boolean;
  /** Factor of the product (1 / sqrt(headSize) in attention), at no extra cost. @default 1 */
  scale?: number;
}

/** a [..., m, k] times b [..., k, n] -> [..., m, n]; the axes before the last two broadcast. */
export function matmul(a: Value, b: Value, options: MatmulOptions = {}): Value {
  const { transA = false, transB = false, scale = 1 } = options;
  const fail = (why: string): never => {
    const how = `${transA ? " (left transposed)" : ""}${transB ? " (right transposed)" : ""}`;
    throw new Error(`${a.graph.where()}matmul of ${a} and ${b}${how}: ${why}`);
  };
  if (a.rank < 2 || b.rank < 2) return fail("both operands need at least two axes");
  const [m, k] = lastTwo(a.shape, transA);
  const [k2, n] = lastTwo(b.shape, transB);
  if (k !== k2) return fail(`the inner sizes ${k} and ${k2} differ`);
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
  if (!batch || a.dtype !== b.dtype) return fail(batch ? "the types differ" : "the leading axes do not broadcast");
  const type = { dtype: a.dtype, shape: [...batch, m, n] };
  if (!transA && !transB && scale === 1) return single(a.graph.node("MatMul", [a, b], [type]));
  const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: scale } };
  return single(a.graph.node("FusedMatMul", [a, b], [type], { attributes, domain: "com.microsoft" }));
}

function lastTwo(shape: Shape, transposed: boolean) {
  const [x, y] = shape.slice(-2) as [Shape[number], Shape[number]];
  return transposed ? ([y, x] as const) : ([x, y] as const);
}
