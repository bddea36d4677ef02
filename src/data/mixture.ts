/** Several data sets drawn from in fixed proportions (`sample_ratio`). */
import { Random } from "../tensor/random.ts";
import type { Dataset, ImageTextPair, Problem } from "./dataset.ts";

// * The pairs of one data set in random order, again and again.
//  * Parts come in a new order in each epoch. As many of them as fill the shuffle buffer are listed together and their pairs
// permuted; so a data set of millions of pairs needs little memory, and the place in it is three numbers.

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
      throw new Error(`${first?.path ?? "The data set"} and its other parts (${parts.length}) list no usable image`);
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

// Work that is begun before its result is asked for.

/** Results of `plan` and then `load`, in order: plans are made one after the other, what they ask for is loaded side by side. */
export class Prefetcher<Plan, Result> {
  private readonly plan: () => Promise<Plan>;
  private readonly load: (plan: Plan) => Promise<Result>;
  private readonly ahead: number;
  private readonly queue: Promise<Result>[] = [];
  private planned: Promise<unknown> = Promise.resolve();

  /** @param ahead results that are on their way while one is used */
  constructor(plan: () => Promise<Plan>, load: (plan: Plan) => Promise<Result>, ahead: number) {
    this.plan = plan;
    this.load = load;
    this.ahead = ahead;
  }

  /** The next result; the ones after it are begun. */
  next(): Promise<Result> {
    while (this.queue.length <= this.ahead) this.begin();
    return this.queue.shift() as Promise<Result>;
  }

  /** Waits for what was begun, so that nothing that it reads from is closed under it. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.queue.splice(0));
  }

  private begin(): void {
    const plan = this.planned.then(() => this.plan());
    const result = plan.then((made) => this.load(made));
    // A failure is met when its turn comes.
    result.catch(() => {});
    this.planned = plan;
    this.queue.push(result);
  }
}
