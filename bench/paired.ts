/** Two contestants in turns, so that whatever else the machine does meets both alike. */

export interface Contest {
  /** Medians over the rounds, in the unit that the contestants return. */
  readonly ours: number;
  readonly theirs: number;
  /** Median of theirs / ours within a round; above 1, ours needs less time. */
  readonly ratio: number;
}

/** Runs A B A B; each call returns the milliseconds of one unit of work. The first round warms up and is not counted. */
export async function paired(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
  rounds: number,
): Promise<Contest> {
  const times: { readonly ours: number; readonly theirs: number }[] = [];
  for (let round = 0; round <= rounds; round++) {
    const time = { ours: await ours(), theirs: await theirs() };
    if (round > 0) times.push(time);
  }
  return {
    ours: median(times.map((time) => time.ours)),
    theirs: median(times.map((time) => time.theirs)),
    ratio: median(times.map((time) => time.theirs / time.ours)),
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}
