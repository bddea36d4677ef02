/** A data set of images and words, in parts that are listed one at a time: a tar of web shards, or a whole folder. */
import type { FileSpan } from "../files/file.ts";

/** One image and what is said of it. */
export interface ImageTextPair {
  /** For messages, and to tell pairs apart: the image's path, or `SHARD.tar/key`. */
  readonly name: string;
  readonly image: FileSpan;
  /** None in a folder of images alone. */
  readonly texts: readonly string[];
}

/** A sample that cannot be used. */
export interface Problem {
  readonly name: string;
  readonly reason: string;
}

/** What a part lists: its pairs in a fixed order, and what had to be left out. */
export interface PartContents {
  readonly pairs: readonly ImageTextPair[];
  readonly problems: readonly Problem[];
}

export interface Part {
  /** Path of the file that lists the pairs. */
  readonly path: string;
  /** Lists the pairs; images are not read. @throws Error naming the file if nothing of it can be used */
  read(): Promise<PartContents>;
}

export interface Dataset {
  readonly layout: string;
  readonly parts: readonly Part[];
}

/** All pairs of all parts. */
export async function listPairs({ parts }: Dataset): Promise<ImageTextPair[]> {
  const pairs: ImageTextPair[] = [];
  for (const part of parts) pairs.push(...(await part.read()).pairs);
  return pairs;
}

// Images that are kept out of training.

export interface Split {
  readonly train: Dataset;
  readonly heldOut: readonly ImageTextPair[];
}

/**
 * The last `count` pairs by name of the data set's last part are held out, the others are for training.
 * @throws Error if the last part has no more than `count` pairs
 */
export async function holdOut(dataset: Dataset, count: number): Promise<Split> {
  const last = dataset.parts.at(-1);
  if (count === 0 || !last) return { train: dataset, heldOut: [] };
  const { pairs } = await last.read();
  if (pairs.length <= count) {
    throw new Error(`${last.path} lists ${pairs.length} images, so ${count} cannot be held out of it`);
  }
  const heldOut = byName(pairs).slice(-count);
  const names = new Set(heldOut.map(({ name }) => name));
  const rest: Part = {
    path: last.path,
    async read() {
      const contents = await last.read();
      return { ...contents, pairs: contents.pairs.filter(({ name }) => !names.has(name)) };
    },
  };
  return { train: { ...dataset, parts: [...dataset.parts.slice(0, -1), rest] }, heldOut };
}

function byName(pairs: readonly ImageTextPair[]): ImageTextPair[] {
  return pairs.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

// Samples that cannot be used: they are counted and named, and too many of them end a run.

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
