/** Pairs that are fetched before they are needed, so that a decision takes no waiting. */
import { type Pair, ReviewError } from "./api.ts";

/** How many. */
const wanted = 2;

export class Ahead {
  /** Called with pairs that will soon be shown. */
  soon: (pair: Pair) => void = () => {};
  #pairs: readonly Pair[] = [];
  #filling = false;

  get ids(): number[] {
    return this.#pairs.map(({ id }) => id);
  }

  take(): Pair | undefined {
    const [first, ...rest] = this.#pairs;
    this.#pairs = rest;
    return first;
  }

  /** Puts a pair before the others. */
  put(pair: Pair): void {
    this.#pairs = [pair, ...this.#pairs.filter(({ id }) => id !== pair.id)];
  }

  remove(pair: Pair): void {
    this.#pairs = this.#pairs.filter(({ id }) => id !== pair.id);
  }

  clear(): void {
    this.#pairs = [];
  }

  /**
   * Fetches as many as are missing.
   * @param shown the id of what is shown now
   * @param next fetches the pair after another
   */
  async fill(shown: () => number | undefined, next: (after: number | undefined) => Promise<Pair | undefined>) {
    if (this.#filling) return;
    this.#filling = true;
    try {
      while (this.#pairs.length < wanted) {
        const before = this.#pairs;
        const pair = await next(this.ids.at(-1) ?? shown());
        // What was asked for may have been answered by another way meanwhile.
        if (before !== this.#pairs) continue;
        if (!pair || pair.id === shown()) break;
        this.#pairs = [...before, pair];
        this.soon(pair);
      }
    } catch (cause) {
      // It is tried again when the next pair is wanted.
      if (!(cause instanceof ReviewError)) throw cause;
    } finally {
      this.#filling = false;
    }
  }
}
