/** Samples that cannot be used: they are counted and named, and too many of them end a run. */
import type { Problem } from "./dataset.ts";

/** So many may always be broken, whatever their share. */
const always = 20;

export class ProblemReport {
  private readonly found = new Map<string, Problem>();
  private readonly largestShare: number;
  private readonly onProblem: (problem: Problem) => void;

  /**
   * @param largestShare of the samples that may be broken
   * @param onProblem told of each broken sample once
   */
  constructor(largestShare: number, onProblem: (problem: Problem) => void = () => {}) {
    this.largestShare = largestShare;
    this.onProblem = onProblem;
  }

  get count(): number {
    return this.found.size;
  }

  add(problem: Problem): void {
    if (this.found.has(problem.name)) return;
    this.found.set(problem.name, problem);
    this.onProblem(problem);
  }

  /** @param seen samples that were asked for so far. @throws Error naming the first broken ones if there are too many */
  check(seen: number): void {
    if (this.count <= always || this.count <= this.largestShare * seen) return;
    const first = [...this.found.values()].slice(0, 3).map(({ name, reason }) => `  ${name}: ${reason}`);
    throw new Error(
      `${this.count} samples are broken, of ${seen} that were read; more than ${(100 * this.largestShare).toFixed(0)}% ` +
        `(run.max_broken) ends the run. The first are\n${first.join("\n")}`,
    );
  }
}
