/** The training loop: it knows batches, a stage, a step and a schedule, but no model. */
import type { FrozenFeatures } from "../data/features/frozen-features.ts";
import type { MixtureState } from "../data/mixture.ts";
import type { NdArray } from "../tensor/array.ts";
import type { WeightAverage } from "./average.ts";
import type { BatchLoader, LoadedSample } from "./batch-loader.ts";
import type { Exchanger } from "./exchanger.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import { SpikeWatch } from "./spike-watch.ts";
import { type ComposedBatch, type Outside, type Stage, stepRandom } from "./stages/stage.ts";
import { NotFiniteError, type TrainingStep } from "./step.ts";

/** What is reported after each step. */
export interface StepReport {
  /** Steps that were taken, this one included. */
  readonly step: number;
  readonly totalSteps: number;
  readonly loss: number;
  /** Parts of the loss, where the stage tells them. */
  readonly terms: Readonly<Record<string, number>>;
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
  readonly stage: Pick<Stage, "compose" | "exchange">;
  /** Runs the stage's exchange between the batches of a step; needed where there are several. */
  readonly exchanger?: Pick<Exchanger, "run">;
  /** What the stage computes outside of its graph. */
  readonly outside?: Pick<Outside, "feeds">;
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
    const feeds = await exchanged(
      withOutside(batches.feeds, step.state.parameters, options),
      step.state.parameters,
      options,
    );
    const result = await step.run(feeds, rate).catch((error: unknown) => {
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

interface BatchFeeds {
  readonly samples: number;
  make(): Promise<Record<string, NdArray>>;
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
  const used = parts.filter(({ composed }) => composed.targets > 0);
  if (used.length === 0) {
    throw new Error(
      `The batch of step ${step + 1} has nothing to learn: all its texts are empty, or too few of its pictures can be read. ${blame(samples)}`,
    );
  }
  const sum = (count: (part: (typeof parts)[number]) => number) => used.reduce((total, part) => total + count(part), 0);
  const totals = { targets: sum(({ composed }) => composed.targets), samples: sum((part) => part.samples.length) };
  const feeds = used.map(
    ({ samples: part, composed }): BatchFeeds => ({
      samples: part.length,
      make: async () => composed.feeds(await frozen.of(part.map(({ picture }) => picture)), totals),
    }),
  );
  return { feeds, tokens: sum(({ composed }) => composed.tokens), places: sum(({ composed }) => composed.places) };
}

/** Batches with what is computed outside of the step's graph, each when its turn comes. */
function withOutside(
  batches: readonly BatchFeeds[],
  parameters: Readonly<Record<string, NdArray>>,
  { outside }: TrainOptions,
): readonly BatchFeeds[] {
  if (!outside) return batches;
  return batches.map(({ samples, make }) => ({
    samples,
    async make() {
      const batch = await make();
      return { ...batch, ...(await outside.feeds(batch, parameters)) };
    },
  }));
}

/** The feeds of each batch, with what it learns of the others: all are made before the first is used then. */
async function exchanged(
  batches: readonly BatchFeeds[],
  parameters: Readonly<Record<string, NdArray>>,
  { stage: { exchange }, exchanger }: TrainOptions,
): Promise<(() => Promise<Record<string, NdArray>>)[]> {
  if (!exchange) return batches.map(({ make }) => make);
  const [only, ...more] = batches;
  if (only && more.length === 0) {
    return [async () => ({ ...(await only.make()), ...exchange.feeds(only.samples, []) })];
  }
  if (!exchanger) throw new Error(`This step has ${batches.length} batches, which need an exchanger`);
  const made: Record<string, NdArray>[] = [];
  for (const { make } of batches) made.push(await make());
  const results = await exchanger.run(made, parameters);
  return batches.map(({ samples }, i) => {
    const others = results.filter((_, other) => other !== i);
    return async () => ({ ...made[i], ...exchange.feeds(samples, others) });
  });
}

/** Samples that are named in a message. */
const named = 16;

function blame(samples: readonly LoadedSample[]): string {
  const names = samples.slice(0, named).map(({ pair }) => pair.name);
  const more = samples.length > named ? ` and ${samples.length - named} more` : "";
  return `Its samples: ${names.join(", ")}${more}`;
}
