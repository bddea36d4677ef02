/** One stage of a run, from its first step or a checkpoint to its end: steps, checkpoints, metrics, held-out loss. */

import { join } from "node:path";
import type { FrozenFeatures } from "../data/frozen-features.ts";
import type { MixtureState } from "../data/sampling.ts";
import { openSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { BatchLoader, type LoadedSample } from "./batch-loader.ts";
import { arraysOf, type Checkpoints, type NamedArrays, type RunState } from "./checkpoints.ts";
import type { Describer, Description } from "./describer.ts";
import type { MetricsLog } from "./metrics/metrics.ts";
import type { HeldOut, PreparedData } from "./prepare.ts";
import type { RecipeBase } from "./recipe.ts";
import { learningRate, type Schedule, SpikeWatch } from "./schedule.ts";
import { type ComposedBatch, type GradCache, type Outside, type Stage, stepRandom } from "./stages/stage.ts";
import { NotFiniteError, type OptimizerOptions, TrainingStep } from "./step.ts";
import { Ema, initialState } from "./training-state.ts";

// What the batches of a step learn of each other before gradients are taken.

type Feeds = Readonly<Record<string, NdArray>>;

/** A stage's exchange as a session. */
export class GradCacheRunner {
  private readonly session: Session;

  private constructor(session: Session) {
    this.session = session;
  }

  static async create({ graph, outputs }: GradCache, options: SessionOptions): Promise<GradCacheRunner> {
    return new GradCacheRunner(await Session.create<string>(graph, outputs, options));
  }

  /** What the exchange's graph gives for each batch under these parameters. */
  async run(batches: readonly Feeds[], parameters: Feeds): Promise<Feeds[]> {
    const results: Feeds[] = [];
    for (const feeds of batches) results.push(await this.session.run({ ...feeds, ...parameters }));
    return results;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

// The training loop: it knows batches, a stage, a step and a schedule, but no model.

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
  readonly exchanger?: Pick<GradCacheRunner, "run">;
  /** What the stage computes outside of its graph. */
  readonly outside?: Pick<Outside, "feeds">;
  readonly schedule: Schedule;
  readonly batches: Pick<BatchLoader, "next">;
  readonly frozen: Pick<FrozenFeatures, "compute">;
  /** Images that go through the step side by side; a step of more accumulates. */
  readonly batchSize: number;
  readonly seed: number;
  /** A running average to update; it begins where `step.state` stands. */
  readonly average?: Ema;
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
      `The batch of step ${step + 1} has nothing to learn: all its texts are empty, or too few of its images can be read. ${blame(samples)}`,
    );
  }
  const sum = (count: (part: (typeof parts)[number]) => number) => used.reduce((total, part) => total + count(part), 0);
  const totals = { targets: sum(({ composed }) => composed.targets), samples: sum((part) => part.samples.length) };
  const feeds = used.map(
    ({ samples: part, composed }): BatchFeeds => ({
      samples: part.length,
      make: async () => composed.feeds(await frozen.compute(part.map(({ image }) => image)), totals),
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

/** What is told of a run while it goes on. */
export interface RunEvents {
  readonly onStep?: (stage: string, report: StepReport) => void;
  readonly onValidation?: (step: number, loss: number, isBest: boolean) => void;
  readonly onSamples?: (step: number, samples: readonly Description[]) => void;
  readonly onMessage?: (message: string) => void;
}

export interface StageRun extends RunEvents {
  readonly schedule: Schedule;
  /** Images of a batch, and batches of a step. */
  readonly batchSize: number;
  readonly accumulate: number;
  readonly saveEvery: number;
  readonly checkpoints: Checkpoints;
  readonly metrics: MetricsLog;
  /** Measured every `validateEvery` steps; the weights with the smallest loss are kept. */
  readonly watch?: { readonly validation: HeldOut; readonly describer?: Describer; readonly every: number };
  readonly session: SessionOptions;
  readonly signal?: AbortSignal;
}

/**
 * Runs a stage to its end or to the signal.
 *
 * @param source the values that the trained weights begin with
 * @param resumed a checkpoint of this stage to go on from
 * @returns the weights to go on with: those with the smallest held-out loss where one is watched, else the running average
 */
export async function runStage(
  prepared: PreparedData,
  stage: Stage,
  source: WeightSource,
  options: StageRun,
  resumed?: RunState,
): Promise<NamedArrays> {
  const { recipe } = prepared;
  const { run } = recipe;
  const { checkpoints, schedule, watch } = options;
  const state = resumed?.state ?? initialState(await valuesOf(source, stage.trained.keys()));
  const step = await TrainingStep.create(stage.graph, stage.loss, stage.trained, state, optimizerOf(recipe), {
    ...options.session,
    accumulates: options.accumulate > 1,
    ...(stage.terms && { terms: stage.terms }),
  });
  const exchanger =
    stage.exchange && options.accumulate > 1
      ? await GradCacheRunner.create(stage.exchange, options.session)
      : undefined;
  const outside = await stage.openOutside?.(options.session);
  const average = run.average_decay > 0 ? new Ema(resumed?.average ?? state.parameters, run.average_decay) : undefined;
  const kept = () => average?.arrays ?? step.state.parameters;
  const batches = new BatchLoader(prepared.mixture(resumed?.place), prepared.loader, prepared.problems, {
    batchSize: options.batchSize * options.accumulate,
    views: { count: run.views, minSide: run.crop_min_side },
    seed: run.seed,
    firstStep: state.step,
  });
  const best = new Best(run.output_dir, resumed?.best);
  let place = resumed?.place ?? prepared.mixture().save();
  let rate = resumed?.learningRate;
  let saved = resumed ? state.step : -1;
  const save = async () => {
    if (saved === step.state.step) return;
    await checkpoints.save({
      stage: stage.name,
      state: step.state,
      place,
      ...(average && { average: average.arrays }),
      ...(best.place && { best: best.place }),
      ...(rate !== undefined && { learningRate: rate }),
    });
    saved = step.state.step;
  };
  const measure = async (): Promise<void> => {
    if (!watch) return;
    const at = step.state.step;
    const loss = await watch.validation.measure(kept());
    const isBest = await best.offer(at, loss, kept());
    await options.metrics.write({ kind: "validation", step: at, time: now(), loss });
    options.onValidation?.(at, loss, isBest);
    const samples = await watch.describer?.describe(kept());
    if (!samples) return;
    await options.metrics.write({ kind: "samples", step: at, time: now(), samples });
    options.onSamples?.(at, samples);
  };
  warnOfJump(rate, state.step, schedule, options.onMessage);
  try {
    // Saved after it was measured: who goes on from here does not measure it again.
    if (!resumed) await measure();
    await save();
    await train(step, {
      stage,
      ...(exchanger && { exchanger }),
      ...(outside && { outside }),
      schedule,
      batches,
      frozen: prepared.frozen,
      batchSize: options.batchSize,
      seed: run.seed,
      ...(average && { average }),
      ...(options.signal && { signal: options.signal }),
      ...(options.onMessage && { onWarning: options.onMessage }),
      async onStep(report) {
        place = report.place;
        rate = report.learningRate;
        await options.metrics.write(metricOf(report));
        options.onStep?.(stage.name, report);
        const isLast = report.step === report.totalSteps;
        if (watch && (report.step % watch.every === 0 || isLast)) await measure();
        if (report.step % options.saveEvery === 0) await save();
      },
    });
    return (await best.weights()) ?? kept();
  } finally {
    // Also after an error: the state is that of the last good step.
    await save().catch((error: Error) => options.onMessage?.(`The state could not be saved: ${error.message}`));
    await batches.settle();
    await exchanger?.close();
    await outside?.close();
    await step.close();
  }
}

/** AdamW as MiniGPT-4 sets it, with the recipe's weight decay and limit of the gradient. */
export function optimizerOf({ run }: RecipeBase): OptimizerOptions {
  return {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weightDecay: run.weight_decay,
    ...(run.max_grad_norm !== undefined && { maxGradNorm: run.max_grad_norm }),
  };
}

/** Values of the weights that a stage trains. */
export async function valuesOf(source: WeightSource, names: Iterable<string>): Promise<NamedArrays> {
  const arrays: NamedArrays = {};
  for (const name of names) {
    arrays[name] = ndarray("float32", source.tensors.get(name)?.shape ?? [], await source.readFloat32(name));
  }
  return arrays;
}

/** A schedule that was changed between two parts of a run moves the learning rate at once, which is worth a word. */
function warnOfJump(
  last: number | undefined,
  step: number,
  schedule: Schedule,
  onMessage: RunEvents["onMessage"],
): void {
  if (last === undefined || step === 0) return;
  const next = learningRate(step, schedule);
  const expected = learningRate(step - 1, schedule);
  if (Math.abs(last - expected) <= 1e-6 * expected) return;
  onMessage?.(
    `The learning rate jumps from ${last.toExponential(2)} to ${next.toExponential(2)}: the recipe has another schedule than the steps before.`,
  );
}

function metricOf({ step, loss, terms, gradNorm, learningRate: rate, tokens, seconds, dataSeconds }: StepReport) {
  return {
    kind: "train" as const,
    step,
    time: now(),
    loss,
    ...(Object.keys(terms).length > 0 && { terms }),
    learning_rate: rate,
    grad_norm: gradNorm,
    tokens_per_second: tokens / seconds,
    data_share: dataSeconds / seconds,
  };
}

function now(): number {
  return Date.now() / 1000;
}

/** The weights with the smallest held-out loss, in a file of the run's folder. */
class Best {
  private readonly path: string;
  place: RunState["best"];

  constructor(folder: string, place: RunState["best"]) {
    this.path = join(folder, "best.safetensors");
    this.place = place;
  }

  /** Keeps the weights if their loss is the smallest. */
  async offer(step: number, loss: number, weights: NamedArrays): Promise<boolean> {
    if (this.place && loss >= this.place.loss) return false;
    await writeSafetensors(this.path, weights, { step: `${step}`, loss: `${loss}` });
    this.place = { step, loss };
    return true;
  }

  async weights(): Promise<NamedArrays | undefined> {
    if (!this.place) return undefined;
    const file = await openSafetensors(this.path);
    try {
      return await arraysOf(file);
    } finally {
      await file.close();
    }
  }
}
