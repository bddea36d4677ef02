/** Several data sets drawn from in fixed proportions (`sample_ratio`). */
import type { ImageTextPair } from "./dataset.ts";
import type { ShuffledStream, StreamState } from "./shuffled-stream.ts";

export interface MixturePart {
  readonly stream: ShuffledStream;
  /** How often it is drawn from, relative to the others. */
  readonly ratio: number;
}

export interface Draw {
  readonly pair: ImageTextPair;
  /** Which data set it is from. */
  readonly dataset: number;
}

export interface MixtureState {
  readonly streams: readonly StreamState[];
  /** By how many draws each data set is behind its proportion. */
  readonly behind: readonly number[];
}

/** Each draw is from the data set that is furthest behind its proportion, so that any stretch of draws is mixed evenly. */
export class Mixture {
  private readonly parts: readonly MixturePart[];
  private readonly behind: number[];

  constructor(parts: readonly MixturePart[], behind: readonly number[] = parts.map(() => 0)) {
    if (parts.length === 0) throw new Error("A mixture needs one data set or more");
    this.parts = parts;
    this.behind = [...behind];
  }

  /** The next `count` pairs. */
  async draw(count: number): Promise<Draw[]> {
    const draws: Draw[] = [];
    for (let i = 0; i < count; i++) draws.push(await this.next());
    return draws;
  }

  save(): MixtureState {
    return { streams: this.parts.map(({ stream }) => stream.save()), behind: [...this.behind] };
  }

  private async next(): Promise<Draw> {
    const total = this.parts.reduce((sum, { ratio }) => sum + ratio, 0);
    this.parts.forEach(({ ratio }, i) => {
      this.behind[i] = (this.behind[i] as number) + ratio / total;
    });
    const dataset = this.behind.indexOf(Math.max(...this.behind));
    this.behind[dataset] = (this.behind[dataset] as number) - 1;
    const { stream } = this.parts[dataset] as MixturePart;
    return { pair: await stream.next(), dataset };
  }
}
