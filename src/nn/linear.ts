/** Linear layers; weights are [out, in], as PyTorch keeps them. */
import type { Value } from "../tensor/graph.ts";
import { split } from "../tensor/layout.ts";
import type { Weights } from "./weights.ts";

/** x [..., in] -> [..., out]: `weight`, and `bias` where the file has one. */
export function linear(w: Weights, x: Value, out: number): Value {
  const y = w.product(x, [{ name: "weight", out }]);
  return w.has("bias") ? y.add(w.get("bias", [out])) : y;
}

/**
 * Several linear layers without bias over the same input, x [..., in] -> [..., out_i] each.
 * Frozen ones are one product where they can be, which saves reading `x` again, and adding their gradients in training.
 */
export function linears(w: Weights, x: Value, outs: Readonly<Record<string, number>>): Value[] {
  const matrices = Object.entries(outs).map(([layer, out]) => ({ name: `${layer}.weight`, out }));
  if (!w.isOneProduct(matrices.map(({ name }) => name))) return matrices.map((matrix) => w.product(x, [matrix]));
  return split(w.product(x, matrices), -1, Object.values(outs));
}

/**
 * As `linears`, of layers with one size, which `combine` makes one of.
 * @param combine works on each element by itself
 */
export function combinedLinears(
  w: Weights,
  x: Value,
  layers: readonly string[],
  out: number,
  combine: (parts: readonly Value[]) => Value,
): Value {
  const matrices = layers.map((layer) => ({ name: `${layer}.weight`, out }));
  if (!w.isOneProduct(matrices.map(({ name }) => name))) return w.combined(x, matrices, combine);
  return combine(linears(w, x, Object.fromEntries(layers.map((layer) => [layer, out]))));
}

/** Rows of the table `weight` [count, size]: ids of any shape -> [...ids, size]. */
export function embedding(w: Weights, ids: Value, count: number, size: number): Value {
  return w.rows("weight", ids, [count, size]);
}
