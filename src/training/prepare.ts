/** What a run has ready before its first step: the model's parts, the images with their texts, and where features come from. */

import { join } from "node:path";
import { type Dataset, type InvalidSample, InvalidSampleTracker, listPairs, splitValidation } from "../data/dataset.ts";
import { defaultWorkers, originalView, startDecoder } from "../data/decoder.ts";
import { FeatureCache } from "../data/feature-cache.ts";
import { openCaptioned } from "../data/formats/open.ts";
import { FrozenFeatures, ImageLoader } from "../data/frozen-features.ts";
import { Mixture, type MixtureState, ShuffledStream } from "../data/sampling.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { frozenShape, imageSpec } from "../models/minigpt4.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { type LoadedSample, loadOrReport, openBrokenLog } from "./batch-loader.ts";
import type { NamedArrays } from "./checkpoints.ts";
import { type ModelParts, openParts, openQFormerParts, type QFormerParts } from "./parts.ts";
import type { MiniGPT4Recipe, QFormerRecipe, RecipeBase } from "./recipe.ts";
import { representationStage } from "./stages/representation-stage.ts";
import type { Stage, StageSample } from "./stages/stage.ts";
import { readPrompts, type TextsOf, type TrainingPrompt, textsOfRecipe } from "./stages/texts.ts";
import type { VisionParts } from "./vision-parts.ts";

// Images that are watched during a run, and never trained on.

/** What is measured of weights on watched images. */
export interface HeldOut {
  /** The loss under `weights`: the smaller, the better. @throws Error if none of the images can be read */
  measure(weights: NamedArrays): Promise<number>;
  close(): Promise<void>;
}

/** Where images and their features come from. */
export interface Images {
  readonly loader: ImageLoader;
  readonly frozen: FrozenFeatures;
  readonly problems: InvalidSampleTracker;
}

/** Loads held-out images as they are; broken ones are left out. */
export async function loadHeldOut(
  samples: readonly StageSample[],
  { loader, problems }: Images,
): Promise<LoadedSample[]> {
  const loaded = await Promise.all(
    samples.map(async (sample): Promise<LoadedSample[]> => {
      const image = await loadOrReport(loader, sample.pair, originalView, problems);
      return image ? [{ ...sample, image }] : [];
    }),
  );
  return loaded.flat();
}

/** Images with their texts, whatever is learned of them. */
export interface PreparedData extends Images {
  readonly recipe: RecipeBase;
  /** What is trained on, for each data set of the recipe. */
  readonly datasets: readonly Dataset[];
  /** Watched during the run. */
  readonly validation: readonly StageSample[];
  readonly textsOf: TextsOf;
  readonly cache: FeatureCache | undefined;
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** The recipe's mixture of data sets, from its beginning or from a place in it. */
  mixture(place?: MixtureState): Mixture;
  close(): Promise<void>;
}

/** What a run of a MiniGPT-4 recipe has ready. */
export interface Prepared extends PreparedData {
  readonly recipe: MiniGPT4Recipe;
  readonly parts: ModelParts;
  readonly prompts: readonly TrainingPrompt[];
}

export interface PrepareOptions extends SessionOptions {
  /** Where broken samples are noted, a JSON object a line; left out, they are only counted. */
  readonly problemsPath?: string;
  readonly onMessage?: (message: string) => void;
}

/** Opens everything that a recipe names. @throws Error naming what is missing or does not fit */
export async function prepare(recipe: MiniGPT4Recipe, options: PrepareOptions = {}): Promise<Prepared> {
  const parts = await openParts(recipe);
  const data = await prepareData(recipe, parts, options);
  try {
    return { ...data, recipe, parts, prompts: await readPrompts(recipe, parts.llm.tokenizer) };
  } catch (error) {
    await data.close();
    throw error;
  }
}

/**
 * Opens a recipe's data sets, and the frozen part with its cache.
 * @param parts are closed with what is returned, also after an error
 */
async function prepareData(
  recipe: RecipeBase,
  parts: VisionParts,
  options: PrepareOptions = {},
): Promise<PreparedData> {
  const { run } = recipe;
  const { problemsPath, onMessage, ...session } = options;
  const closing: (() => Promise<void>)[] = [() => parts.close()];
  const close = async () => {
    for (const step of closing.reverse()) await step();
  };
  try {
    const note = problemsPath === undefined ? undefined : await openBrokenLog(problemsPath, onMessage);
    const problems = new InvalidSampleTracker(run.max_broken, note);
    const onInvalid = (problem: InvalidSample) => problems.add(problem);
    const { datasets, validation } = await openDatasets(recipe);
    const { frozen: frozenPart, frozenKey } = parts;
    const cacheAt = cachePath(recipe);
    const shape = frozenShape(parts.config, frozenPart.depth);
    const cache = cacheAt ? await FeatureCache.open({ folder: cacheAt, key: frozenKey, shape }, onMessage) : undefined;
    if (cache) closing.push(() => cache.close());
    const decoder = startDecoder(run.num_workers ?? defaultWorkers());
    closing.push(() => decoder.close());
    const frozen = new FrozenFeatures(frozenPart, cache, session);
    closing.push(() => frozen.close());
    const ratios = Object.values(recipe.datasets).map(({ sample_ratio: ratio }) => ratio);
    return {
      recipe,
      datasets,
      validation,
      problems,
      cache,
      frozen,
      totalSteps: run.max_epoch * (run.iters_per_epoch ?? (await stepsThrough(datasets, recipe))),
      loader: new ImageLoader(imageSpec(parts.config.encoder), decoder, cache),
      textsOf: textsOfRecipe(recipe, datasets),
      mixture(place) {
        const streams = datasets.map((dataset, i) => {
          const seed = run.seed * 1000 + i;
          const stream = { seed, shuffleBuffer: run.shuffle_buffer, onInvalid };
          return { stream: new ShuffledStream(dataset, stream, place?.streams[i]), ratio: ratios[i] ?? 1 };
        });
        return new Mixture(streams, place?.behind);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The data sets of a recipe, without what is held out of them, and what is watched. */
async function openDatasets(recipe: RecipeBase): Promise<{ datasets: Dataset[]; validation: StageSample[] }> {
  const datasets: Dataset[] = [];
  const validation: StageSample[] = [];
  for (const [name, { path, format, images, filter, hold_out: heldOut, validate }] of Object.entries(recipe.datasets)) {
    try {
      const dataset = await openCaptioned(path, {
        format,
        ...(images && { images }),
        ...(filter && { filter }),
      });
      const { train: usable } = await splitValidation(dataset, heldOut);
      const { train, validation: watched } = await splitValidation(usable, validate);
      validation.push(...watched.map((pair) => ({ pair, dataset: datasets.length })));
      datasets.push(train);
    } catch (cause) {
      throw new Error(`Data set ${name}: ${(cause as Error).message}`, { cause });
    }
  }
  return { datasets, validation };
}

/** Steps that show each image once. */
async function stepsThrough(datasets: readonly Dataset[], { run }: RecipeBase): Promise<number> {
  let images = 0;
  for (const dataset of datasets) images += (await listPairs(dataset)).length;
  return Math.max(1, Math.ceil(images / (run.batch_size * run.accum_grad_iters)));
}

/** Where a recipe keeps features; undefined if it does not. */
function cachePath({ run: { feature_cache: cache } }: RecipeBase): string | undefined {
  if (cache === false) return undefined;
  return cache === true ? join(cacheFolder(), "features") : cache;
}

// What a pre-training run has ready before its first step.

export interface PreparedQFormer extends PreparedData {
  readonly recipe: QFormerRecipe;
  readonly parts: QFormerParts;
}

/** Opens everything that a recipe names. @throws Error naming what is missing or does not fit */
export async function prepareQFormer(recipe: QFormerRecipe, options: PrepareOptions = {}): Promise<PreparedQFormer> {
  const parts = await openQFormerParts(recipe);
  return { ...(await prepareData(recipe, parts, options)), recipe, parts };
}

/** The recipe's stage. @param isWatched for measuring: nothing is dropped out */
export function stageOf(
  { recipe: { model, run }, parts, textsOf }: PreparedQFormer,
  { isWatched = false } = {},
): Stage {
  const { config, frozen, image, isTrained, tokenizer } = parts;
  return representationStage({
    config,
    depth: frozen.depth,
    source: image,
    isTrained,
    losses: model.losses,
    tokenizer,
    textsOf,
    maxTextLength: model.max_txt_len,
    dropout: isWatched ? 0 : run.qformer_dropout,
    featureDropout: isWatched ? 0 : run.feature_dropout,
  });
}
