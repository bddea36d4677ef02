/** Image-text datasets: pairs in parts that are listed one at a time, validation splits, and samples that cannot be used. */
import type { FileSource } from "../files/file.ts";

/** An image and its captions. */
export interface ImageTextPair {
  /** Identifies the pair, also in messages: the image's path, or `SHARD.tar/key`. */
  readonly name: string;
  readonly image: FileSource;
  /** Empty in a folder of images without captions. */
  readonly texts: readonly string[];
}

/** A sample that cannot be used, and why. */
export interface InvalidSample {
  readonly name: string;
  readonly reason: string;
}

/** The pairs of a part in a fixed order, and the samples that were left out. */
export interface PartContents {
  readonly pairs: readonly ImageTextPair[];
  readonly invalid: readonly InvalidSample[];
}

/** A tar of web shards, or a whole folder. */
export interface Part {
  /** Path of the file that lists the pairs. */
  readonly path: string;
  /** Lists the pairs without reading images. @throws Error naming the file if no pair in it can be used */
  read(): Promise<PartContents>;
}

export interface Dataset {
  /** Name of the format, see `formatNames`. */
  readonly format: string;
  readonly parts: readonly Part[];
}

/** All pairs of all parts. */
export async function listPairs({ parts }: Dataset): Promise<ImageTextPair[]> {
  const pairs: ImageTextPair[] = [];
  for (const part of parts) pairs.push(...(await part.read()).pairs);
  return pairs;
}

export interface ValidationSplit {
  readonly train: Dataset;
  readonly validation: readonly ImageTextPair[];
}

/**
 * Splits off the last `count` pairs by name of the dataset's last part.
 * @throws Error if the last part has no more than `count` pairs
 */
export async function splitValidation(dataset: Dataset, count: number): Promise<ValidationSplit> {
  const last = dataset.parts.at(-1);
  if (count === 0 || !last) return { train: dataset, validation: [] };
  const { pairs } = await last.read();
  if (pairs.length <= count) {
    throw new Error(`${last.path} lists ${pairs.length} images, so ${count} cannot be held out of it`);
  }
  const validation = pairs.toSorted((a, b) => (a.name < b.name ? -1 : 1)).slice(-count);
  const names = new Set(validation.map(({ name }) => name));
  const rest: Part = {
    path: last.path,
    async read() {
      const contents = await last.read();
      return { ...contents, pairs: contents.pairs.filter(({ name }) => !names.has(name)) };
    },
  };
  return { train: { ...dataset, parts: [...dataset.parts.slice(0, -1), rest] }, validation };
}

/** This many invalid samples are always tolerated, whatever their share. */
const alwaysTolerated = 20;

/** Collects invalid samples, each once, and stops the run when there are too many. */
export class InvalidSampleTracker {
  private readonly found = new Map<string, InvalidSample>();
  private readonly maxShare: number;
  private readonly onInvalid: (sample: InvalidSample) => void;

  /**
   * @param maxShare largest tolerated share of invalid samples, 0 to 1
   * @param onInvalid called once for each invalid sample
   */
  constructor(maxShare: number, onInvalid: (sample: InvalidSample) => void = () => {}) {
    this.maxShare = maxShare;
    this.onInvalid = onInvalid;
  }

  get count(): number {
    return this.found.size;
  }

  add(sample: InvalidSample): void {
    if (this.found.has(sample.name)) return;
    this.found.set(sample.name, sample);
    this.onInvalid(sample);
  }

  /** @param seen samples requested so far. @throws Error naming the first invalid samples if there are too many */
  check(seen: number): void {
    if (this.count <= alwaysTolerated || this.count <= this.maxShare * seen) return;
    const first = [...this.found.values()].slice(0, 3).map(({ name, reason }) => `  ${name}: ${reason}`);
    throw new Error(
      `${this.count} of ${seen} samples are invalid, more than the limit of ${(100 * this.maxShare).toFixed(0)}% ` +
        `(run.max_broken). The first ones:\n${first.join("\n")}`,
    );
  }
}
