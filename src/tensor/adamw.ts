/** AdamW (Loshchilov & Hutter, arXiv 1711.05101) as nodes of the graph, so that a whole training step is one session call. */
import type { Value } from "./graph.ts";
import { sqrt } from "./ops/elementwise.ts";

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Decoupled weight decay: each step multiplies the parameter by 1 - learningRate * weightDecay. */
  readonly weightDecay: number;
}

/** Scalars that are fed at each step. */
export interface StepScalars {
  readonly learningRate: Value;
  /** Bias correction of the mean: 1 - beta1^step, with steps counted from 1. */
  readonly correction1: Value;
  /** Bias correction of the variance: 1 - beta2^step. */
  readonly correction2: Value;
}

/** Running estimates of the gradient's first and second moments; both have the parameter's shape. */
export interface Moments {
  readonly mean: Value;
  readonly variance: Value;
}

/** Returns the parameter and its moments after one step, all of the parameter's shape. */
export function adamw(
  parameter: Value,
  gradient: Value,
  moments: Moments,
  { learningRate, correction1, correction2 }: StepScalars,
  { beta1, beta2, eps, weightDecay }: AdamWOptions,
): Moments & { readonly parameter: Value } {
  const mean = moments.mean.mul(beta1).add(gradient.mul(1 - beta1));
  const variance = moments.variance.mul(beta2).add(gradient.mul(gradient).mul(1 - beta2));
  // Combine scalars first: an operation on a whole parameter is expensive.
  const stepSize = learningRate.div(correction1);
  const decay = learningRate.mul(-weightDecay).add(1);
  const step = mean.div(sqrt(variance.div(correction2)).add(eps)).mul(stepSize);
  const decayed = weightDecay === 0 ? parameter : parameter.mul(decay);
  return { parameter: decayed.sub(step), mean, variance };
}
