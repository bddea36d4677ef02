/** What a run has ready before its first step: the model's parts, the pictures with their texts, and where features come from. */
import { join } from "node:path";
import { cacheFolder } from "../checkpoints/cache-folder.ts";
import { type Dataset, listPairs, type Problem } from "../data/dataset.ts";
import { defaultWorkers, startDecoder } from "../data/decoding/decoder.ts";
import { FeatureCache } from "../data/features/feature-cache.ts";
import { FrozenFeatures } from "../data/features/frozen-features.ts";
import { PictureLoader } from "../data/features/picture-loader.ts";
import { Mixture, type MixtureState } from "../data/mixture.ts";
import { openCaptioned } from "../data/open-dataset.ts";
import { ProblemReport } from "../data/problems.ts";
import { ShuffledStream } from "../data/shuffled-stream.ts";
import { holdOut } from "../data/split.ts";
import { frozenShape, imageSpec } from "../models/minigpt4.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { openBrokenLog } from "./broken-log.ts";
import type { Pictures } from "./held-out.ts";
import type { MiniGPT4Recipe } from "./minigpt4-recipe.ts";
import { type ModelParts, openParts } from "./parts.ts";
import type { RecipeBase } from "./recipe-sections.ts";
import { readPrompts, type TrainingPrompt } from "./stages/prompts.ts";
import type { StageSample } from "./stages/stage.ts";
import { type TextsOf, textsOfRecipe } from "./stages/texts.ts";
import type { VisionParts } from "./vision-parts.ts";

/** Pictures with their texts, whatever is learned of them. */
export interface PreparedData extends Pictures {
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
export async function prepareData(
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
    const problems = new ProblemReport(run.max_broken, note);
    const onProblem = (problem: Problem) => problems.add(problem);
    const { datasets, validation } = await openDatasets(recipe);
    const { frozen: frozenPart, frozenKey } = parts;
    const cacheAt = cachePath(recipe);
    const shape = frozenShape(parts.config, frozenPart.depth);
    const cache = cacheAt ? await FeatureCache.open({ folder: cacheAt, key: frozenKey, shape }, onMessage) : undefined;
    if (cache) closing.push(() => cache.close());
    const decoder = startDecoder(run.num_workers ?? defaultWorkers());
    closing.push(() => decoder.close());
    const frozen = new FrozenFeatures(frozenPart, cache, session);
    closing.push(() => frozen.release());
    const ratios = Object.values(recipe.datasets).map(({ sample_ratio: ratio }) => ratio);
    return {
      recipe,
      datasets,
      validation,
      problems,
      cache,
      frozen,
      totalSteps: run.max_epoch * (run.iters_per_epoch ?? (await stepsThrough(datasets, recipe))),
      loader: new PictureLoader(imageSpec(parts.config.encoder), decoder, cache),
      textsOf: textsOfRecipe(recipe, datasets),
      mixture(place) {
        const streams = datasets.map((dataset, i) => {
          const seed = run.seed * 1000 + i;
          const stream = { seed, shuffleBuffer: run.shuffle_buffer, onProblem };
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
  for (const [name, { path, layout, images, filter, hold_out: heldOut, validate }] of Object.entries(recipe.datasets)) {
    try {
      const dataset = await openCaptioned(path, {
        ...(layout && { layout }),
        ...(images && { images }),
        ...(filter && { filter }),
      });
      const { train: usable } = await holdOut(dataset, heldOut);
      const { train, heldOut: watched } = await holdOut(usable, validate);
      validation.push(...watched.map((pair) => ({ pair, dataset: datasets.length })));
      datasets.push(train);
    } catch (cause) {
      throw new Error(`Data set ${name}: ${(cause as Error).message}`, { cause });
    }
  }
  return { datasets, validation };
}

/** Steps that show each picture once. */
async function stepsThrough(datasets: readonly Dataset[], { run }: RecipeBase): Promise<number> {
  let pictures = 0;
  for (const dataset of datasets) pictures += (await listPairs(dataset)).length;
  return Math.max(1, Math.ceil(pictures / (run.batch_size * run.accum_grad_iters)));
}

/** Where a recipe keeps features; undefined if it does not. */
function cachePath({ run: { feature_cache: cache } }: RecipeBase): string | undefined {
  if (cache === false) return undefined;
  return cache === true ? join(cacheFolder(), "features") : cache;
}
