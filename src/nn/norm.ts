/** Normalisation layers with their learned parameters. */

import { sqrt } from "../tensor/elementwise.ts";
import type { Value } from "../tensor/graph.ts";
import * as ops from "../tensor/normalization.ts";
import { reduceSum } from "../tensor/reduce.ts";
import type { Weights } from "./weights.ts";

function width(x: Value): number {
  const size = x.dim(-1);
  if (typeof size !== "number") throw new Error(`${x.graph.where()}norm of ${x}: its last axis has no known size`);
  return size;
}

/** Layer norm with `weight` and `bias` over the last axis. */
export function layerNorm(w: Weights, x: Value, eps: number): Value {
  return ops.layerNorm(x, w.get("weight", [width(x)]), w.get("bias", [width(x)]), eps);
}

/** RMS norm with `weight` over the last axis. */
export function rmsNorm(w: Weights, x: Value, eps: number): Value {
  return ops.rmsNorm(x, w.get("weight", [width(x)]), eps);
}

/** Brings the rows along the last axis to length 1; rows of zeros stay zeros. */
export function unitLength(x: Value): Value {
  return x.div(sqrt(reduceSum(x.mul(x), [-1]).add(1e-12)));
}
