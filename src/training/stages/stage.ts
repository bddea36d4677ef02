/** What one stage of training is: a loss, and how pictures with texts become the feeds of a step. The trainer knows no more. */
import type { ImageTextPair } from "../../data/dataset.ts";
import type { NdArray } from "../../tensor/array.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import { Random } from "../../tensor/random.ts";

/** A picture with its texts, drawn for a step. */
export interface StageSample {
  readonly pair: ImageTextPair;
  /** Which data set of the recipe it is from. */
  readonly dataset: number;
}

/** Samples that were made into sequences; their pictures' features come later. */
export interface ComposedBatch {
  /** Tokens, or pictures, over which the loss is a mean. */
  readonly targets: number;
  /** Tokens that go through the language model, and the places that they and the padding take. */
  readonly tokens: number;
  readonly places: number;
  /**
   * @param features of the samples' pictures, [samples, ...]
   * @param targets of all batches of the step
   */
  feeds(features: NdArray<"float32">, targets: number): Record<string, NdArray>;
}

export interface Stage {
  readonly name: string;
  readonly graph: Graph;
  /** float32 scalar. */
  readonly loss: Value;
  /** Inputs of the graph that are trained, by name. */
  readonly trained: ReadonlyMap<string, Value>;
  /** @param random the step's own numbers, which decide whatever is left to chance */
  compose(samples: readonly StageSample[], random: Random): ComposedBatch;
}

/** The random numbers of one step: they depend on the run's seed and the step alone, so that a run can go on anywhere. The seed is below 2^21. */
export function stepRandom(seed: number, step: number): Random {
  return new Random(seed * 2 ** 32 + step);
}
