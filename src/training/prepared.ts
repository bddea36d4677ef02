/** What a run has ready before its first step: the language model, the pictures with their texts, and their features. */
import type { FeatureStore } from "../data/feature-store.ts";
import { Sampler, type SamplerState, sharesOf } from "../data/sampler.ts";
import type { MiniGPT4Config } from "../models/minigpt4.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import type { NdArray } from "../tensor/array.ts";
import type { Random } from "../tensor/random.ts";
import type { SessionOptions } from "../tensor/session.ts";
import type { Example } from "./dataset.ts";
import { dropoutMask } from "./dropout.ts";
import type { Recipe } from "./recipe.ts";
import type { StepReport } from "./trainer.ts";

export interface RunOptions extends SessionOptions {
  /** Goes on from the saved state in the output folder. */
  readonly resume?: boolean;
  readonly onFeatures?: (done: number, total: number) => void;
  /** `stage` is "contrastive" or "captions". */
  readonly onStep?: (stage: string, report: StepReport) => void;
  /** The mean loss of the watched pictures' texts after a step. */
  readonly onValidation?: (step: number, loss: number) => void;
  readonly onMessage?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/** Everything that both stages need. */
export interface Prepared {
  readonly recipe: Recipe;
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
  /** The examples of each data set of the recipe, in its order. */
  readonly sets: readonly (readonly Example[])[];
  /** Their features follow those of `sets`. */
  readonly validation: readonly Example[];
  /** `run.views` rows for each example. */
  readonly features: FeatureStore;
  readonly random: Random;
  readonly options: RunOptions;
}

/** Only what concerns the engine. */
export function sessionOptions({ device, threads }: RunOptions): SessionOptions {
  return { ...(device && { device }), ...(threads && { threads }) };
}

/** An example in one of its views. */
export interface Chosen {
  readonly example: Example;
  /** Row of the features. */
  readonly row: number;
}

/** Draws batches that hold each data set's share. */
export function samplerOf({ recipe, sets, random }: Prepared, batchSize: number, state?: SamplerState): Sampler {
  const ratios = Object.values(recipe.datasets).map(({ sample_ratio }) => sample_ratio);
  const perBatch = sharesOf(ratios, batchSize);
  const shares = sets.map((set, i) => ({ size: set.length, perBatch: perBatch[i] as number }));
  return new Sampler(shares, random, state);
}

/** The pictures of the next batch, each in a random view. */
export function choose({ recipe, sets, random }: Prepared, sampler: Sampler): Chosen[] {
  const { views } = recipe.run;
  return sampler.next().flatMap((samples, set) => {
    const before = sets.slice(0, set).reduce((sum, { length }) => sum + length, 0);
    return samples.map((index) => ({
      example: sets[set]?.[index] as Example,
      row: (before + index) * views + random.below(views),
    }));
  });
}

/** Features of the chosen views, [images, cells, width]. */
export function readFeatures({ features }: Prepared, chosen: readonly Chosen[]): Promise<NdArray<"float32">> {
  return features.readRows(chosen.map(({ row }) => row));
}

/** Sets a share of the features to zero, in place, and scales the rest up (dropout). */
export function dropFeatures({ recipe, random }: Prepared, { data }: NdArray<"float32">): void {
  const { feature_dropout: share } = recipe.run;
  if (share === 0) return;
  const mask = dropoutMask(data.length, share, random);
  for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) * (mask[i] as number);
}

export function namesOf(chosen: readonly Chosen[]): string[] {
  return chosen.map(({ example }) => example.pair.picture);
}
