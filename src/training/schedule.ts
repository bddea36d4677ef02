/** Learning rates as LAVIS sets them (`linear_warmup_cosine_lr`). */

export interface Schedule {
  readonly initLr: number;
  readonly minLr: number;
  /** Where the warm-up line begins. */
  readonly warmupLr: number;
  readonly warmupSteps: number;
  /** All steps of the run; the cosine spans them, also those of the warm-up. */
  readonly totalSteps: number;
}

/**
 * The learning rate of a step, counted from 0: the line from `warmupLr` to `initLr` below `warmupSteps`, then the cosine
 * from `initLr` to `minLr`. As in the original, the cosine's place is the step's place among ALL steps.
 */
export function learningRate(step: number, { initLr, minLr, warmupLr, warmupSteps, totalSteps }: Schedule): number {
  if (step < warmupSteps) return Math.min(initLr, warmupLr + ((initLr - warmupLr) * step) / Math.max(warmupSteps, 1));
  return (initLr - minLr) * 0.5 * (1 + Math.cos((Math.PI * step) / totalSteps)) + minLr;
}
