/** The training loop: it knows batches, a stage, a step and a schedule, but no model. */
import type { FrozenFeatures } from "../data/features/frozen-features.ts";
import type { MixtureState } from "../data/mixture.ts";
import type { NdArray } from "../tensor/array.ts";
import type { WeightAverage } from "./average.ts";
import type { BatchLoader, LoadedSample } from "./batch-loader.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import { SpikeWatch } from "./spike-watch.ts";
import { type ComposedBatch, type Stage, stepRandom } from "./stages/stage.ts";
import { NotFiniteError, type TrainingStep } from "./step.ts";

/** What is reported after each step. */
export interface StepReport {
  /** Steps that were taken, this one included. */
  readonly step: number;
  readonly totalSteps: number;
  readonly loss: number;
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Of this step, and the part of it that was spent waiting for data. */
  readonly seconds: number;
  readonly dataSeconds: number;
  /** Tokens that went through the language model, without padding, and the places that they and the padding took. */
  readonly tokens: number;
  readonly places: number;
  /** Where the data stand after this step. */
  readonly place: MixtureState;
}

export interface TrainOptions {
  readonly stage: Pick<Stage, "compose">;
  readonly schedule: Schedule;
  readonly batches: Pick<BatchLoader, "next">;
  readonly frozen: Pick<FrozenFeatures, "of">;
  /** Pictures that go through the step side by side; a step of more accumulates. */
  readonly batchSize: number;
  readonly seed: number;
  /** A running average to update; it begins where `step.state` stands. */
  readonly average?: WeightAverage;
  /** The step to stop after, where that is before the schedule's end. */
  readonly lastStep?: number;
  readonly onStep?: (report: StepReport) => void | Promise<void>;
  readonly onWarning?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Takes the steps from where the state stands to the end of the schedule, or until the signal.
 * @throws Error naming the step's samples if the loss is no number, or there is nothing to learn from; the state is then
 *   what it was before the step
 */
export async function train(step: TrainingStep, options: TrainOptions): Promise<void> {
  const { schedule, average, onStep, signal } = options;
  const spikes = new SpikeWatch();
  const end = Math.min(schedule.totalSteps, options.lastStep ?? schedule.totalSteps);
  while (step.state.step < end && !signal?.aborted) {
    const started = performance.now();
    const { samples, place } = await options.batches.next();
    const dataSeconds = (performance.now() - started) / 1000;
    const rate = learningRate(step.state.step, schedule);
    const batches = compose(samples, step.state.step, options);
    const result = await step.run(batches.feeds, rate).catch((error: unknown) => {
      if (error instanceof NotFiniteError) throw new Error(`${error.message}. ${blame(samples)}`, { cause: error });
      throw error;
    });
    average?.update(step.state.parameters, step.state.step);
    const warning = spikes.look(result.loss);
    if (warning) options.onWarning?.(`Step ${step.state.step}: ${warning} ${blame(samples)}`);
    await onStep?.({
      step: step.state.step,
      totalSteps: schedule.totalSteps,
      ...result,
      learningRate: rate,
      seconds: (performance.now() - started) / 1000,
      dataSeconds,
      tokens: batches.tokens,
      places: batches.places,
      place,
    });
  }
}

/** The step's batches. Features of each are made when its turn comes, so that those of a large step are never all there. */
function compose(samples: readonly LoadedSample[], step: number, options: TrainOptions) {
  const { stage, frozen, batchSize, seed } = options;
  const random = stepRandom(seed, step);
  const parts: { readonly samples: readonly LoadedSample[]; readonly composed: ComposedBatch }[] = [];
  for (let start = 0; start < samples.length; start += batchSize) {
    const part = samples.slice(start, start + batchSize);
    parts.push({ samples: part, composed: stage.compose(part, random) });
  }
  const sum = (count: (composed: ComposedBatch) => number) =>
    parts.reduce((total, { composed }) => total + count(composed), 0);
  const targets = sum((composed) => composed.targets);
  if (targets === 0) {
    throw new Error(`The batch of step ${step + 1} has nothing to learn: all its texts are empty. ${blame(samples)}`);
  }
  const feeds = parts
    .filter(({ composed }) => composed.targets > 0)
    .map(({ samples: part, composed }) => async (): Promise<Record<string, NdArray>> => {
      const features = await frozen.of(part.map(({ picture }) => picture));
      return composed.feeds(features, targets);
    });
  return { feeds, tokens: sum(({ tokens }) => tokens), places: sum(({ places }) => places) };
}

/** Samples that are named in a message. */
const named = 16;

function blame(samples: readonly LoadedSample[]): string {
  const names = samples.slice(0, named).map(({ pair }) => pair.name);
  const more = samples.length > named ? ` and ${samples.length - named} more` : "";
  return `Its samples: ${names.join(", ")}${more}`;
}
