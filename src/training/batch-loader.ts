/** The batches of a run's steps, drawn and loaded while earlier steps are computed. */

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
  /** Where the data stand after this batch: a run that has taken its step goes on from here. */
  readonly place: MixtureState;
}

export interface BatchOptions {
  /** Images of one step. */
  readonly batchSize: number;
  readonly views: ViewOptions;
  readonly seed: number;
  /** The step that the first batch is for. */
  readonly firstStep: number;
}

/** Where the pairs of a step come from. */
export type DrawSource = Pick<Mixture, "take" | "save">;

/** Batches that are loaded while one is used. */
const ahead = 2;
/** Names the random numbers that choose views, apart from those that the stage draws. */
const viewSeed = 1_000_003;

/** What a batch will hold. */
interface Plan {
  readonly draws: readonly (MixtureSample & { readonly view: View })[];
  readonly place: MixtureState;
}

export class BatchLoader {
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

  /** The next step's batch; broken samples are left out of it. @throws Error if none is left, or too many are broken */
  async next(): Promise<LoadedBatch> {
    const batch = await this.prefetcher.next();
    this.seen += this.options.batchSize;
    this.problems.check(this.seen);
    if (batch.samples.length === 0)
      throw new Error(`No image of a whole batch (${this.options.batchSize}) can be read`);
    return batch;
  }

  /** Waits for batches that were begun and will not be used. */
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
    return { draws, place: this.source.save() };
  }

  private async load({ draws, place }: Plan): Promise<LoadedBatch> {
    const loaded = await Promise.all(
      draws.map(async ({ pair, dataset, view }): Promise<LoadedSample[]> => {
        const image = await loadOrReport(this.loader, pair, view, this.problems);
        return image ? [{ pair, dataset, image }] : [];
      }),
    );
    return { samples: loaded.flat(), place };
  }
}

/** A broken image is reported, and there is none. */
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

// `broken.jsonl` in a run's folder: each broken sample once, however often the run is gone on with.

/** Notes one more problem. What cannot be noted is only told: no run ends for it. */
type Note = (problem: InvalidSample) => void;

/** @param onMessage is told if the file cannot be written */
export async function openBrokenLog(path: string, onMessage: (message: string) => void = () => {}): Promise<Note> {
  const text = await readFile(path, "utf8").catch(() => "");
  const lines = text.split("\n");
  const noted = new Set(lines.map(nameOf));
  // Behind a line that a killed process left half-written.
  let before = lines.at(-1) === "" ? "" : "\n";
  let writing = Promise.resolve();
  return (problem) => {
    if (noted.has(problem.name)) return;
    noted.add(problem.name);
    const line = `${before}${JSON.stringify(problem)}\n`;
    before = "";
    writing = writing
      .then(() => appendFile(path, line))
      .catch((error: Error) => onMessage(`Broken samples cannot be noted: ${error.message}`));
  };
}

function nameOf(line: string): unknown {
  try {
    return JSON.parse(line).name;
  } catch {
    return undefined;
  }
}
