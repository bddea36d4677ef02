/** The images and texts of a run: datasets, validation samples, and the features of the frozen part. */

import { join } from "node:path";
import { type Dataset, InvalidSampleTracker, listPairs, splitValidation } from "../data/dataset.ts";
import { defaultWorkers, originalView, startDecoder } from "../data/decoder.ts";
import { FeatureCache } from "../data/feature-cache.ts";
import { openCaptioned } from "../data/formats/open.ts";
import { FrozenFeatures, ImageLoader } from "../data/frozen-features.ts";
import { Mixture, type MixtureState, ShuffledStream } from "../data/sampling.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { frozenShape, imageSpec } from "../models/minigpt4.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { BatchLoader, type LoadedSample, loadOrReport, openBrokenLog } from "./batch-loader.ts";
import type { RecipeBase } from "./recipe.ts";
import type { StageSample } from "./stages/stage.ts";
import { type TextsOf, targetTexts } from "./stages/texts.ts";
import type { VisionParts } from "./vision-parts.ts";

export interface TrainingDataOptions {
  readonly session?: SessionOptions;
  /** File for broken samples, one JSON object a line; without it they are only counted. */
  readonly brokenLog?: string;
  readonly onMessage?: (message: string) => void;
}

export class TrainingData {
  /** What is trained on, for each dataset of the recipe. */
  readonly datasets: readonly Dataset[];
  /** What the model is validated on during training. */
  readonly validation: readonly StageSample[];
  readonly textsOf: TextsOf;
  readonly loader: ImageLoader;
  readonly frozen: FrozenFeatures;
  readonly cache: FeatureCache | undefined;
  readonly problems: InvalidSampleTracker;
  private readonly recipe: RecipeBase;
  private readonly decoder: ReturnType<typeof startDecoder>;

  private constructor(
    recipe: RecipeBase,
    { datasets, validation }: OpenDatasets,
    parts: Pick<TrainingData, "loader" | "frozen" | "cache" | "problems"> & {
      readonly decoder: TrainingData["decoder"];
    },
  ) {
    this.recipe = recipe;
    this.datasets = datasets;
    this.validation = validation;
    this.textsOf = targetTexts(recipe, datasets);
    this.loader = parts.loader;
    this.frozen = parts.frozen;
    this.cache = parts.cache;
    this.problems = parts.problems;
    this.decoder = parts.decoder;
  }

  /** Opens the datasets of a recipe. @throws Error naming the dataset or file that is missing or wrong */
  static async open(
    recipe: RecipeBase,
    { config, frozen: part, frozenKey: key }: VisionParts,
    { session = {}, brokenLog, onMessage }: TrainingDataOptions = {},
  ): Promise<TrainingData> {
    const { run } = recipe;
    const onInvalid = brokenLog === undefined ? undefined : await openBrokenLog(brokenLog, onMessage);
    const opened = await openDatasets(recipe);
    const folder = cachePath(recipe);
    const shape = frozenShape(config, part.depth);
    const cache = folder === undefined ? undefined : await FeatureCache.open({ folder, key, shape }, onMessage);
    const decoder = startDecoder(run.num_workers ?? defaultWorkers());
    return new TrainingData(recipe, opened, {
      loader: new ImageLoader(imageSpec(config.encoder), decoder, cache),
      frozen: new FrozenFeatures(part, cache, session),
      cache,
      problems: new InvalidSampleTracker(run.max_broken, onInvalid),
      decoder,
    });
  }

  /** Steps of the whole run: those of the recipe, or as many as show each image once an epoch. */
  async countSteps(): Promise<number> {
    const { run } = this.recipe;
    if (run.iters_per_epoch !== undefined) return run.max_epoch * run.iters_per_epoch;
    let images = 0;
    for (const dataset of this.datasets) images += (await listPairs(dataset)).length;
    return run.max_epoch * Math.max(1, Math.ceil(images / (run.batch_size * run.accum_grad_iters)));
  }

  /**
   * The batches of a run.
   *
   * @param batchSize images of a step, all micro-batches together
   * @param firstStep the step that the first batch is for
   * @param position where to continue in the datasets; from their beginning by default
   */
  batches(batchSize: number, firstStep: number, position?: MixtureState): BatchLoader {
    const { run } = this.recipe;
    return new BatchLoader(this.mixture(position), this.loader, this.problems, {
      batchSize,
      views: { count: run.views, minSide: run.crop_min_side },
      seed: run.seed,
      firstStep,
    });
  }

  /** Loads images without augmentation; broken ones are left out. */
  async load(samples: readonly StageSample[]): Promise<LoadedSample[]> {
    const loaded = await Promise.all(
      samples.map(async (sample): Promise<LoadedSample[]> => {
        const image = await loadOrReport(this.loader, sample.pair, originalView, this.problems);
        return image ? [{ ...sample, image }] : [];
      }),
    );
    return loaded.flat();
  }

  async close(): Promise<void> {
    await this.frozen.close();
    await this.decoder.close();
    await this.cache?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private mixture(position?: MixtureState): Mixture {
    const { run, datasets } = this.recipe;
    const ratios = Object.values(datasets).map(({ sample_ratio: ratio }) => ratio);
    const streams = this.datasets.map((dataset, i) => {
      const options = {
        seed: run.seed * 1000 + i,
        shuffleBuffer: run.shuffle_buffer,
        onInvalid: this.problems.add.bind(this.problems),
      };
      return { stream: new ShuffledStream(dataset, options, position?.streams[i]), ratio: ratios[i] ?? 1 };
    });
    return new Mixture(streams, position?.behind);
  }
}

type OpenDatasets = Pick<TrainingData, "datasets" | "validation">;

async function openDatasets(recipe: RecipeBase): Promise<OpenDatasets> {
  const datasets: Dataset[] = [];
  const validation: StageSample[] = [];
  for (const [name, { path, format, images, filter, hold_out: test, validation: count }] of Object.entries(
    recipe.datasets,
  )) {
    try {
      const dataset = await openCaptioned(path, { format, images, filter });
      const { train: usable } = await splitValidation(dataset, test);
      const { train, validation: own } = await splitValidation(usable, count);
      validation.push(...own.map((pair) => ({ pair, dataset: datasets.length })));
      datasets.push(train);
    } catch (cause) {
      throw new Error(`Dataset ${name}: ${(cause as Error).message}`, { cause });
    }
  }
  return { datasets, validation };
}

/** Folder of the feature cache; undefined where a recipe has none. */
function cachePath({ run: { feature_cache: cache } }: RecipeBase): string | undefined {
  if (cache === false) return undefined;
  return cache === true ? join(cacheFolder(), "features") : cache;
}
