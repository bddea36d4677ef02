/** A limit on the tokens of a project, kept although several answers are on their way. */

export class Budget {
  private readonly limit: number;
  private readonly spent: () => number;
  private reserved = 0;
  private open = 0;
  /** How many times more tokens a prompt had than was estimated, at most. */
  private factor = 2;

  /** @param spent how many tokens answers have cost */
  constructor(limit: number, spent: () => number) {
    this.limit = limit;
    this.spent = spent;
  }

  /** Whether no answer is on its way. */
  get settled(): boolean {
    return this.open === 0;
  }

  /**
   * Sets aside what a question and its answer can cost at most.
   * @returns what gives it back when the cost is known; undefined if it is not there
   */
  reserve(estimatedPrompt: number, longestAnswer: number): (() => void) | undefined {
    const most = Math.ceil(estimatedPrompt * this.factor) + longestAnswer;
    if (this.limit < Number.POSITIVE_INFINITY && this.spent() + this.reserved + most > this.limit) return undefined;
    this.reserved += most;
    this.open++;
    return () => {
      this.reserved -= most;
      this.open--;
    };
  }

  /** Learns how the service counts. */
  learn(estimatedPrompt: number, counted: number): void {
    this.factor = Math.max(this.factor, counted / estimatedPrompt);
  }
}
