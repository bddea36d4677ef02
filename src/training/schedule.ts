/** The learning rate schedule of LAVIS (`linear_warmup_cosine_lr`), and a detector of loss spikes. */

export interface Schedule {
  readonly initLr: number;
  readonly minLr: number;
  /** Learning rate of the first warm-up step. */
  readonly warmupLr: number;
  readonly warmupSteps: number;
  /** Steps of the run, warm-up included; the cosine spans all of them. */
  readonly totalSteps: number;
}

/**
 * The learning rate of a step, counted from 0: linear warm-up from `warmupLr` to `initLr`, then a cosine from `initLr` to
 * `minLr`. As in the original, the cosine starts at step 0, not after the warm-up.
 */
export function learningRate(step: number, { initLr, minLr, warmupLr, warmupSteps, totalSteps }: Schedule): number {
  if (step < warmupSteps) return Math.min(initLr, warmupLr + ((initLr - warmupLr) * step) / Math.max(warmupSteps, 1));
  return (initLr - minLr) * 0.5 * (1 + Math.cos((Math.PI * step) / totalSteps)) + minLr;
}

/** Decay of the running mean and variance. */
const decay = 0.98;
/** Losses before the first spike can be detected. */
const warmup = 20;
/** A spike is this many standard deviations above the mean, and at least this much (nats). */
const deviations = 6;
const leastJump = 0.5;

/** Detects a loss far above its running mean, as after too large a step. */
export class SpikeDetector {
  private seen = 0;
  private mean = 0;
  private variance = 0;

  /** @returns a message if the loss is a spike */
  check(loss: number): string | undefined {
    const distance = loss - this.mean;
    const threshold = Math.max(leastJump, deviations * Math.sqrt(this.variance));
    const isSpike = this.seen >= warmup && distance > threshold;
    const meanBefore = this.mean;
    // The plain mean at first. A spike moves the mean like any other loss, so a level that stays is reported once.
    const weight = Math.max(1 - decay, 1 / (this.seen + 1));
    this.mean += weight * distance;
    this.variance = (1 - weight) * (this.variance + weight * distance * distance);
    this.seen++;
    if (!isSpike) return undefined;
    return `the loss jumped to ${loss.toFixed(3)} from about ${meanBefore.toFixed(3)}; if it stays there, lower run.init_lr.`;
  }
}
