/** Elementwise operators. */
import { type DType, onnxType } from "../array.ts";
import { type Attributes, elementwise, type Node, single, type Value } from "../graph.ts";
import { broadcastShapes } from "../shapes.ts";

function unary(op: string, x: Value, attributes: Attributes = {}, domain: Node["domain"] = ""): Value {
  return single(x.graph.node(op, [x], [{ dtype: x.dtype, shape: x.shape }], { attributes, domain }));
}

export const neg = (x: Value) => unary("Neg", x);
export const abs = (x: Value) => unary("Abs", x);
export const exp = (x: Value) => unary("Exp", x);
/** Natural logarithm. */
export const log = (x: Value) => unary("Log", x);
export const sqrt = (x: Value) => unary("Sqrt", x);
export const sin = (x: Value) => unary("Sin", x);
export const cos = (x: Value) => unary("Cos", x);
export const tanh = (x: Value) => unary("Tanh", x);
export const sigmoid = (x: Value) => unary("Sigmoid", x);
export const erf = (x: Value) => unary("Erf", x);
export const relu = (x: Value) => unary("Relu", x);

/** The operator of `detach`, at which differentiation stops. */
export const detached = "Identity";
/** The same value, treated as a constant in differentiation. */
export const detach = (x: Value) => unary(detached, x);

/** x * sigmoid(x) (SiLU, swish), as one fused operator. */
export const silu = (x: Value) => unary("QuickGelu", x, { alpha: { float: 1 } }, "com.microsoft");

/** Exact GELU, x * Phi(x) computed with erf, as in BERT and EVA. */
export const gelu = (x: Value) => unary("Gelu", x);

/** Clamps each element to [low, high]. */
export function clip(x: Value, low: number, high: number): Value {
  const { graph } = x;
  return single(graph.node("Clip", [x, graph.scalar(low), graph.scalar(high)], [{ dtype: x.dtype, shape: x.shape }]));
}

export function cast(x: Value, dtype: DType): Value {
  if (x.dtype === dtype) return x;
  return single(x.graph.node("Cast", [x], [{ dtype, shape: x.shape }], { attributes: { to: onnxType(dtype) } }));
}

export const equal = (a: Value, b: Value | number) => elementwise("Equal", a, b, "bool");
export const less = (a: Value, b: Value | number) => elementwise("Less", a, b, "bool");

/** Elements of `a` where `condition` (bool) is true, of `b` elsewhere; all three broadcast. */
export function where(condition: Value, a: Value, b: Value): Value {
  const branches = broadcastShapes(a.shape, b.shape);
  const shape = branches && broadcastShapes(condition.shape, branches);
  if (!shape || condition.dtype !== "bool" || a.dtype !== b.dtype) {
    throw new Error(
      `${a.graph.where()}where(${condition}, ${a}, ${b}): expected a bool condition, operands of one type, and shapes that broadcast`,
    );
  }
  return single(a.graph.node("Where", [condition, a, b], [{ dtype: a.dtype, shape }]));
}
