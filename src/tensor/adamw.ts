/** AdamW (Loshchilov & Hutter, arXiv 1711.05101) as nodes of the graph: a training step is one session call. */

import type { Value } from "./graph.ts";
import { sqrt } from "./ops/elementwise.ts";

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Decoupled weight decay; each step shrinks the parameter by learningRate * weightDecay. */
  readonly weightDecay: number;
}

/** What a step knows beside the gradient: scalars that are fed at each run. */
export interface StepScalars {
  readonly learningRate: Value;
  /** 1 - beta1^step and 1 - beta2^step, steps counted from 1. */
  readonly correction1: Value;
  readonly correction2: Value;
}

export interface Moments {
  readonly mean: Value;
  readonly variance: Value;
}

/** The parameter and its moments after one step. All values have the parameter's shape. */
export function adamw(
  parameter: Value,
  gradient: Value,
  moments: Moments,
  { learningRate, correction1, correction2 }: StepScalars,
  { beta1, beta2, eps, weightDecay }: AdamWOptions,
): Moments & { readonly parameter: Value } {
  const mean = moments.mean.mul(beta1).add(gradient.mul(1 - beta1));
  const variance = moments.variance.mul(beta2).add(gradient.mul(gradient).mul(1 - beta2));
  // What can be computed from scalars alone is: an operation on a whole parameter costs time.
  const rate = learningRate.div(correction1);
  const kept = learningRate.mul(-weightDecay).add(1);
  const step = mean.div(sqrt(variance.div(correction2)).add(eps)).mul(rate);
  const decayed = weightDecay === 0 ? parameter : parameter.mul(kept);
  return { parameter: decayed.sub(step), mean, variance };
}
