/** The batches of a run, drawn and loaded while earlier steps are computed. */

import { appendFile, readFile } from "node:fs/promises";
import { basename } from "node:path";
import type { ImageTextPair, InvalidSample, InvalidSampleTracker } from "../data/dataset.ts";
import { createViews, originalView, type View, type ViewOptions } from "../data/decoder.ts";
import type { ImageLoader, LoadedImage } from "../data/frozen-features.ts";
import { type Mixture, type MixtureSample, type MixtureState, Prefetcher } from "../data/sampling.ts";
import { type StageSample, stepRandom } from "./stages/stage.ts";

export interface LoadedSample extends StageSample {
  readonly image: LoadedImage;
}

export interface LoadedBatch {
  readonly samples: readonly LoadedSample[];
  /** Position in the datasets after this batch. */
  readonly position: MixtureState;
}

export interface BatchOptions {
  /** Images of a step. */
  readonly batchSize: number;
  readonly views: ViewOptions;
  readonly seed: number;
  /** The step that the first batch is for. */
  readonly firstStep: number;
}

/** Draws the pairs of a step. */
export type DrawSource = Pick<Mixture, "take" | "save">;

/** Batches that are loaded ahead of time. */
const ahead = 2;
/** Separates the random numbers that choose views from those that the stage draws. */
const viewSeed = 1_000_003;

/** A batch before its images are loaded. */
interface Plan {
  readonly draws: readonly (MixtureSample & { readonly view: View })[];
  readonly position: MixtureState;
}

export class BatchLoader {
  /** Position in the datasets before the first batch. */
  readonly position: MixtureState;
  private readonly source: DrawSource;
  private readonly loader: Pick<ImageLoader, "load">;
  private readonly problems: InvalidSampleTracker;
  private readonly options: BatchOptions;
  private readonly prefetcher: Prefetcher<Plan, LoadedBatch>;
  private planned: number;
  private seen = 0;

  constructor(
    source: DrawSource,
    loader: Pick<ImageLoader, "load">,
    problems: InvalidSampleTracker,
    options: BatchOptions,
  ) {
    this.source = source;
    this.position = source.save();
    this.loader = loader;
    this.problems = problems;
    this.options = options;
    this.planned = options.firstStep;
    this.prefetcher = new Prefetcher(
      () => this.plan(),
      (plan) => this.load(plan),
      ahead,
    );
  }

  /** The batch of the next step without broken samples. @throws Error if no sample is left, or too many are broken */
  async next(): Promise<LoadedBatch> {
    const batch = await this.prefetcher.next();
    this.seen += this.options.batchSize;
    this.problems.check(this.seen);
    if (batch.samples.length === 0) {
      throw new Error(`None of the ${this.options.batchSize} images of a batch can be read`);
    }
    return batch;
  }

  /** Waits for batches that are being loaded and will not be used. */
  settle(): Promise<void> {
    return this.prefetcher.settle();
  }

  private async plan(): Promise<Plan> {
    const { batchSize, views, seed } = this.options;
    const random = stepRandom(seed + viewSeed, this.planned++);
    const draws = (await this.source.take(batchSize)).map((draw) => {
      const number = random.below(views.count);
      return { ...draw, view: createViews(basename(draw.pair.name), views)[number] ?? originalView };
    });
    return { draws, position: this.source.save() };
  }

  private async load({ draws, position }: Plan): Promise<LoadedBatch> {
    const loaded = await Promise.all(
      draws.map(async ({ pair, dataset, view }): Promise<LoadedSample[]> => {
        const image = await loadOrReport(this.loader, pair, view, this.problems);
        return image ? [{ pair, dataset, image }] : [];
      }),
    );
    return { samples: loaded.flat(), position };
  }
}

/** Loads an image; a broken one is reported, and undefined is returned. */
export async function loadOrReport(
  loader: Pick<ImageLoader, "load">,
  pair: ImageTextPair,
  view: View,
  problems: InvalidSampleTracker,
): Promise<LoadedImage | undefined> {
  try {
    return await loader.load(pair, view);
  } catch (error) {
    const { message } = error as Error;
    const reason = message.startsWith(`${pair.name} `) ? message.slice(pair.name.length + 1) : message;
    problems.add({ name: pair.name, reason });
    return undefined;
  }
}

/**
 * Opens `broken.jsonl` of a run's folder, which lists each broken sample once, also over several resumed runs.
 *
 * @param onMessage called if the file cannot be written, which does not end the run
 * @returns appends a problem
 */
export async function openBrokenLog(
  path: string,
  onMessage: (message: string) => void = () => {},
): Promise<(problem: InvalidSample) => void> {
  const text = await readFile(path, "utf8").catch(() => "");
  const lines = text.split("\n");
  const logged = new Set(lines.map(readName));
  // A killed process may have left half a line.
  let before = lines.at(-1) === "" ? "" : "\n";
  let writing = Promise.resolve();
  return (problem) => {
    if (logged.has(problem.name)) return;
    logged.add(problem.name);
    const line = `${before}${JSON.stringify(problem)}\n`;
    before = "";
    writing = writing
      .then(() => appendFile(path, line))
      .catch((error: Error) => onMessage(`${path} cannot be written: ${error.message}`));
  };
}

function readName(line: string): unknown {
  try {
    return JSON.parse(line).name;
  } catch {
    return undefined;
  }
}
