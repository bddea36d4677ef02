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

// Notices a loss that leaves its usual range, as it does after too large a step.

/** How slowly the usual range follows. */
const memory = 0.98;
/** Losses that are seen before anything counts as unusual. */
const learning = 20;
/** Standard deviations from the mean that are unusual, and the least distance (nats) that matters. */
const deviations = 6;
const least = 0.5;

export class SpikeWatch {
  private seen = 0;
  private mean = 0;
  private variance = 0;

  /** @returns what is unusual about the loss, if anything is */
  look(loss: number): string | undefined {
    const distance = loss - this.mean;
    const usual = Math.max(least, deviations * Math.sqrt(this.variance));
    const isSpike = this.seen >= learning && distance > usual;
    const usualMean = this.mean;
    // In the beginning the mean of all; a spike moves the range like any other loss, so that it is told once.
    const weight = Math.max(1 - memory, 1 / (this.seen + 1));
    this.mean += weight * distance;
    this.variance = (1 - weight) * (this.variance + weight * distance * distance);
    this.seen++;
    if (!isSpike) return undefined;
    return `the loss jumped to ${loss.toFixed(3)} from about ${usualMean.toFixed(3)}; if it stays there, lower run.init_lr.`;
  }
}
