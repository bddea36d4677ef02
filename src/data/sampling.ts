/** Endless sampling from datasets: shuffled streams, mixtures of them in fixed proportions, and prefetching. All of it can be resumed. */
import { Random } from "../tensor/random.ts";
import type { Dataset, ImageTextPair, InvalidSample } from "./dataset.ts";

/** Position in a stream: pairs consumed from the buffer that starts with this part of this epoch's order. */
export interface StreamState {
  readonly epoch: number;
  readonly part: number;
  readonly position: number;
}

export interface StreamOptions {
  readonly seed: number;
  /** Minimum number of pairs that are shuffled together. */
  readonly shuffleBuffer: number;
  readonly onInvalid?: (sample: InvalidSample) => void;
}

/** Parts that are listed and shuffled together. */
interface Buffer {
  readonly pairs: readonly ImageTextPair[];
  /** First part of the next buffer. */
  readonly end: number;
}

/**
 * The pairs of a dataset in random order, epoch after epoch. Parts are shuffled in each epoch, and as many of them as fill the shuffle
 * buffer are listed and shuffled together. A dataset of millions of pairs needs little memory, and the position is three numbers.
 */
export class ShuffledStream {
  private readonly dataset: Dataset;
  private readonly options: StreamOptions;
  private state: StreamState;
  private buffer: Buffer | undefined;
  /** Whether this epoch has yielded a pair. */
  private hasYielded: boolean;

  constructor(dataset: Dataset, options: StreamOptions, state: StreamState = { epoch: 0, part: 0, position: 0 }) {
    this.dataset = dataset;
    this.options = options;
    this.state = state;
    this.hasYielded = state.part > 0 || state.position > 0;
  }

  /** The next pair; a new epoch starts after the last one. @throws Error if the dataset has no usable pair */
  async next(): Promise<ImageTextPair> {
    for (;;) {
      this.buffer ??= await this.fillBuffer();
      const pair = this.buffer.pairs[this.state.position];
      if (pair) {
        this.state = { ...this.state, position: this.state.position + 1 };
        this.hasYielded = true;
        return pair;
      }
      this.advance(this.buffer.end);
    }
  }

  save(): StreamState {
    return this.state;
  }

  /** Moves to the buffer that starts with `part`, or to the next epoch after the last part. */
  private advance(part: number): void {
    this.buffer = undefined;
    const { parts } = this.dataset;
    if (part < parts.length) {
      this.state = { ...this.state, part, position: 0 };
      return;
    }
    if (!this.hasYielded) {
      const [first] = parts;
      throw new Error(
        `None of ${parts.length} parts (${first?.path ?? "the dataset is empty"}, ...) has a usable image`,
      );
    }
    this.state = { epoch: this.state.epoch + 1, part: 0, position: 0 };
    this.hasYielded = false;
  }

  private async fillBuffer(): Promise<Buffer> {
    const { epoch, part } = this.state;
    const { seed, shuffleBuffer, onInvalid } = this.options;
    const { parts } = this.dataset;
    const order = createRandom(seed, epoch).shuffle(parts.map((_, i) => i));
    const pairs: ImageTextPair[] = [];
    let end = part;
    while (end < parts.length && pairs.length < shuffleBuffer) {
      const next = parts[order[end] as number];
      end++;
      const contents = await next?.read().catch((error: Error) => {
        onInvalid?.({ name: next.path, reason: error.message });
      });
      for (const sample of contents?.invalid ?? []) onInvalid?.(sample);
      pairs.push(...(contents?.pairs ?? []));
    }
    return { pairs: createRandom(seed, epoch, part + 1).shuffle(pairs), end };
  }
}

/** A generator seeded by all numbers, which are mixed so that neighbouring seeds are uncorrelated. */
function createRandom(...numbers: readonly number[]): Random {
  return new Random(numbers.reduce((seed, number) => new Random(seed * 4096 + number).uint32(), 0));
}

export interface MixturePart {
  readonly stream: ShuffledStream;
  /** Sampling weight relative to the other parts (`sample_ratio`). */
  readonly ratio: number;
}

export interface MixtureSample {
  readonly pair: ImageTextPair;
  /** Index of the dataset it comes from. */
  readonly dataset: number;
}

export interface MixtureState {
  readonly streams: readonly StreamState[];
  /** How many samples each dataset lags behind its proportion. The name is that of the field in checkpoints. */
  readonly behind: readonly number[];
}

/** Takes each sample from the dataset that lags most behind its proportion, so that every stretch of samples is evenly mixed. */
export class Mixture {
  private readonly parts: readonly MixturePart[];
  private readonly deficits: number[];

  constructor(parts: readonly MixturePart[], deficits: readonly number[] = parts.map(() => 0)) {
    if (parts.length === 0) throw new Error("A mixture needs at least one dataset");
    this.parts = parts;
    this.deficits = [...deficits];
  }

  /** The next `count` samples. */
  async take(count: number): Promise<MixtureSample[]> {
    const samples: MixtureSample[] = [];
    for (let i = 0; i < count; i++) samples.push(await this.next());
    return samples;
  }

  save(): MixtureState {
    return { streams: this.parts.map(({ stream }) => stream.save()), behind: [...this.deficits] };
  }

  private async next(): Promise<MixtureSample> {
    const total = this.parts.reduce((sum, { ratio }) => sum + ratio, 0);
    this.parts.forEach(({ ratio }, i) => {
      this.deficits[i] = (this.deficits[i] as number) + ratio / total;
    });
    const dataset = this.deficits.indexOf(Math.max(...this.deficits));
    this.deficits[dataset] = (this.deficits[dataset] as number) - 1;
    const { stream } = this.parts[dataset] as MixturePart;
    return { pair: await stream.next(), dataset };
  }
}

/** Loads results ahead of time and returns them in order. Plans are made one after the other; their loads run concurrently. */
export class Prefetcher<Plan, Result> {
  private readonly plan: () => Promise<Plan>;
  private readonly load: (plan: Plan) => Promise<Result>;
  private readonly ahead: number;
  private readonly queue: Promise<Result>[] = [];
  private lastPlan: Promise<unknown> = Promise.resolve();

  /** @param ahead number of results that are loaded while one is used */
  constructor(plan: () => Promise<Plan>, load: (plan: Plan) => Promise<Result>, ahead: number) {
    this.plan = plan;
    this.load = load;
    this.ahead = ahead;
  }

  /** The next result; starts loading those after it. */
  next(): Promise<Result> {
    while (this.queue.length <= this.ahead) this.start();
    return this.queue.shift() as Promise<Result>;
  }

  /** Waits for pending loads, so that the files they read can be closed. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.queue.splice(0));
  }

  private start(): void {
    const plan = this.lastPlan.then(() => this.plan());
    const result = plan.then((made) => this.load(made));
    // A rejection is reported by `next`.
    result.catch(() => {});
    this.lastPlan = plan;
    this.queue.push(result);
  }
}
