/** Linear layers, embeddings, normalization and cross-entropy. Weights are [out, in], as in PyTorch. */
import type { Value } from "../tensor/graph.ts";
import { silu, sqrt } from "../tensor/ops/elementwise.ts";
import { gatherElements } from "../tensor/ops/gather.ts";
import { split } from "../tensor/ops/layout.ts";
import * as ops from "../tensor/ops/normalization.ts";
import { logSumExp, reduceMean, reduceSum } from "../tensor/ops/reduce.ts";
import type { Matrix } from "../tensor/quant/matrix.ts";
import type { Weights } from "./weights.ts";

/** x [..., in] -> [..., out] with `weight` [out, in] and, if the source has it, `bias` [out]. */
export function linear(w: Weights, x: Value, out: number): Value {
  const y = w.matrix("weight", [out, x.size(-1)]).matmul(x);
  return w.has("bias") ? y.add(w.get("bias", [out])) : y;
}

/**
 * Several linear layers without bias over the same input: x [..., in] -> [..., out_i] each. They are computed as one product where
 * possible, which reads `x` once and saves summing their gradients in training.
 */
export function linears(w: Weights, x: Value, outs: Readonly<Record<string, number>>): Value[] {
  const matrices = layerMatrices(w, x, outs);
  const joined = w.concat(matrices);
  return joined ? split(joined.matmul(x), -1, Object.values(outs)) : matrices.map((matrix) => matrix.matmul(x));
}

function layerMatrices(w: Weights, x: Value, outs: Readonly<Record<string, number>>): Matrix[] {
  return Object.entries(outs).map(([layer, out]) => w.matrix(`${layer}.weight`, [out, x.size(-1)]));
}

/** Rows of the table `weight` [count, size]: ids [...] -> [...ids, size]. */
export function embedding(w: Weights, ids: Value, count: number, size: number): Value {
  return w.matrix("weight", [count, size]).gather(ids);
}

/** LLaMA's gated feed-forward block (SwiGLU, Shazeer, arXiv 2002.05202): down(silu(gate(x)) * up(x)), x [..., hidden] -> [..., hidden]. */
export function gatedMlp(w: Weights, x: Value, intermediateSize: number): Value {
  const outs = { gate_proj: intermediateSize, up_proj: intermediateSize };
  const swiglu = ([gate, up]: readonly Value[]) => silu(gate as Value).mul(up as Value);
  const matrices = layerMatrices(w, x, outs);
  const [gate, ...others] = matrices as [Matrix, ...Matrix[]];
  const joined = w.concat(matrices);
  const inner = joined ? swiglu(split(joined.matmul(x), -1, Object.values(outs))) : gate.combine(x, others, swiglu);
  return linear(w.at("down_proj"), inner, x.size(-1));
}

function width(x: Value): number {
  const size = x.dim(-1);
  if (typeof size !== "number")
    throw new Error(`${x.graph.where()}norm of ${x}: the size of the last axis must be a number`);
  return size;
}

/** Layer norm over the last axis, with `weight` and `bias`. */
export function layerNorm(w: Weights, x: Value, eps: number): Value {
  return ops.layerNorm(x, w.get("weight", [width(x)]), w.get("bias", [width(x)]), eps);
}

/** RMS norm over the last axis, with `weight`. */
export function rmsNorm(w: Weights, x: Value, eps: number): Value {
  return ops.rmsNorm(x, w.get("weight", [width(x)]), eps);
}

/** Scales rows along the last axis to length 1; rows of zeros stay zero. */
export function l2Normalize(x: Value): Value {
  return x.div(sqrt(reduceSum(x.mul(x), [-1]).add(1e-12)));
}

/**
 * Cross-entropy of each row in nats: logits [rows, classes], targets int64 [rows, 1] -> [rows, 1].
 *
 * @param smoothing label smoothing as in PyTorch (Szegedy et al., arXiv 1512.00567, section 7): the probability that is spread evenly
 *   over all classes
 */
export function crossEntropy(logits: Value, targets: Value, smoothing = 0): Value {
  const target = gatherElements(logits, targets);
  const smoothed = smoothing === 0 ? target : target.mul(1 - smoothing).add(reduceMean(logits, [1]).mul(smoothing));
  return logSumExp(logits).sub(smoothed);
}
