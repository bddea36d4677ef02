/**
 * The pairs of one data set in random order, again and again.
 *
 * Parts come in a new order in each epoch. As many of them as fill the shuffle buffer are listed together and their pairs
 * permuted; so a data set of millions of pairs needs little memory, and the place in it is three numbers.
 */
import { Random } from "../tensor/random.ts";
import type { Dataset, ImageTextPair, Problem } from "./dataset.ts";

/** Where a stream stands: pairs taken from the buffer that begins with this part of this epoch's order. */
export interface StreamState {
  readonly epoch: number;
  readonly part: number;
  readonly position: number;
}

export interface StreamOptions {
  readonly seed: number;
  /** Pairs that are permuted together, at least. */
  readonly shuffleBuffer: number;
  readonly onProblem?: (problem: Problem) => void;
}

/** The parts that are listed together. */
interface Buffer {
  readonly pairs: readonly ImageTextPair[];
  /** The part that the next buffer begins with. */
  readonly end: number;
}

export class ShuffledStream {
  private readonly dataset: Dataset;
  private readonly options: StreamOptions;
  private state: StreamState;
  private buffer: Buffer | undefined;
  /** Whether this epoch has given any pair. */
  private isFruitful: boolean;

  constructor(dataset: Dataset, options: StreamOptions, state: StreamState = { epoch: 0, part: 0, position: 0 }) {
    this.dataset = dataset;
    this.options = options;
    this.state = state;
    this.isFruitful = state.part > 0 || state.position > 0;
  }

  /** The next pair; after the last one the data set begins anew. @throws Error if it lists no pair at all */
  async next(): Promise<ImageTextPair> {
    for (;;) {
      this.buffer ??= await this.fill();
      const pair = this.buffer.pairs[this.state.position];
      if (pair) {
        this.state = { ...this.state, position: this.state.position + 1 };
        this.isFruitful = true;
        return pair;
      }
      this.turn(this.buffer.end);
    }
  }

  save(): StreamState {
    return this.state;
  }

  /** Goes on to the next buffer, in the next epoch if this one is over. */
  private turn(part: number): void {
    this.buffer = undefined;
    const { parts } = this.dataset;
    if (part < parts.length) {
      this.state = { ...this.state, part, position: 0 };
      return;
    }
    if (!this.isFruitful) {
      const [first] = parts;
      throw new Error(`${first?.path ?? "The data set"} and its other parts (${parts.length}) list no usable picture`);
    }
    this.state = { epoch: this.state.epoch + 1, part: 0, position: 0 };
    this.isFruitful = false;
  }

  private async fill(): Promise<Buffer> {
    const { epoch, part } = this.state;
    const { seed, shuffleBuffer, onProblem } = this.options;
    const { parts } = this.dataset;
    const order = randomOf(seed, epoch).shuffle(parts.map((_, i) => i));
    const pairs: ImageTextPair[] = [];
    let end = part;
    while (end < parts.length && pairs.length < shuffleBuffer) {
      const next = parts[order[end] as number];
      end++;
      const contents = await next?.read().catch((error: Error) => {
        onProblem?.({ name: next.path, reason: error.message });
      });
      contents?.problems.forEach((problem) => {
        onProblem?.(problem);
      });
      pairs.push(...(contents?.pairs ?? []));
    }
    return { pairs: randomOf(seed, epoch, part + 1).shuffle(pairs), end };
  }
}

/** Random numbers for one purpose; the numbers are mixed so that neighbours have nothing in common. */
function randomOf(...numbers: readonly number[]): Random {
  return new Random(numbers.reduce((seed, number) => new Random(seed * 4096 + number).uint32(), 0));
}
