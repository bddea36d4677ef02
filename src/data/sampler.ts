/** Which samples make a batch: each data set gives its share, and its samples come in a new random order each time round. */
import type { Random } from "../tensor/random.ts";

export interface Share {
  /** Samples of this data set. */
  readonly size: number;
  /** How many of them stand in each batch. */
  readonly perBatch: number;
}

/** Where a sampler stands, so that it can go on from there. */
export type SamplerState = readonly (readonly number[])[];

/** Draws without replacement until a data set is used up, then begins it anew. */
export class Sampler {
  private readonly shares: readonly Share[];
  private readonly random: Random;
  /** What is left of each data set in this round, next one last. */
  private readonly left: number[][];

  constructor(shares: readonly Share[], random: Random, state: SamplerState = []) {
    for (const { size, perBatch } of shares) {
      if (size === 0 && perBatch > 0) throw new Error("A data set has no samples to draw from");
    }
    this.shares = shares;
    this.random = random;
    this.left = shares.map((_, i) => [...(state[i] ?? [])]);
  }

  /** For each data set, the samples of the next batch. */
  next(): number[][] {
    return this.shares.map(({ size, perBatch }, set) => Array.from({ length: perBatch }, () => this.draw(set, size)));
  }

  save(): SamplerState {
    return this.left.map((left) => [...left]);
  }

  private draw(set: number, size: number): number {
    const left = this.left[set] as number[];
    if (left.length === 0) left.push(...this.random.shuffle(Array.from({ length: size }, (_, i) => i)));
    return left.pop() as number;
  }
}

/**
 * How many samples of each data set stand in a batch, in proportion to `sample_ratio`. Every data set gets at least one.
 */
export function sharesOf(ratios: readonly number[], batchSize: number): number[] {
  const total = ratios.reduce((sum, ratio) => sum + ratio, 0);
  const exact = ratios.map((ratio) => (ratio / total) * batchSize);
  const counts = exact.map((share) => Math.max(1, Math.floor(share)));
  const byRest = exact.map((share, i) => ({ i, rest: share - Math.floor(share) })).sort((a, b) => b.rest - a.rest);
  for (const { i } of byRest) {
    if (counts.reduce((sum, count) => sum + count, 0) >= batchSize) break;
    counts[i] = (counts[i] as number) + 1;
  }
  return counts;
}
