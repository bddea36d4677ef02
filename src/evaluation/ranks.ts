/** Places among all, in a few numbers. */

/** Of the places at which things stand that belong together, the best first. */
export interface RankSummary {
  readonly medianRank: number;
  /** Share of those that are among the first 1, 5 and 10. */
  readonly first: number;
  readonly firstFive: number;
  readonly firstTen: number;
}

/** @param ranks counted from 1 */
export function summarizeRanks(ranks: readonly number[]): RankSummary {
  const share = (rank: number) => ranks.filter((r) => r <= rank).length / ranks.length;
  return { medianRank: median(ranks), first: share(1), firstFive: share(5), firstTen: share(10) };
}

/** The middle value, or the mean of the two in the middle. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
