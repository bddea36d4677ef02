/** One stage of a run, from its first step or a checkpoint to its end: steps, checkpoints, metrics, held-out loss. */
import { join } from "node:path";
import { openSafetensors, writeSafetensors } from "../checkpoints/safetensors.ts";
import type { WeightSource } from "../nn/weights.ts";
import { ndarray } from "../tensor/array.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { WeightAverage } from "./average.ts";
import { BatchLoader } from "./batch-loader.ts";
import { arraysOf, type Checkpoints, type NamedArrays, type RunState } from "./checkpoints.ts";
import type { Describer, Description } from "./describer.ts";
import { Exchanger } from "./exchanger.ts";
import type { HeldOut } from "./held-out.ts";
import type { MetricsLog } from "./metrics/metrics.ts";
import type { PreparedData } from "./prepared.ts";
import type { RecipeBase } from "./recipe-sections.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import type { Stage } from "./stages/stage.ts";
import { type OptimizerOptions, TrainingStep } from "./step.ts";
import { type StepReport, train } from "./trainer.ts";
import { initialState } from "./training-state.ts";

/** What is told of a run while it goes on. */
export interface RunEvents {
  readonly onStep?: (stage: string, report: StepReport) => void;
  readonly onValidation?: (step: number, loss: number, isBest: boolean) => void;
  readonly onSamples?: (step: number, samples: readonly Description[]) => void;
  readonly onMessage?: (message: string) => void;
}

export interface StageRun extends RunEvents {
  readonly schedule: Schedule;
  /** Pictures of a batch, and batches of a step. */
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
    stage.exchange && options.accumulate > 1 ? await Exchanger.create(stage.exchange, options.session) : undefined;
  const outside = await stage.openOutside?.(options.session);
  const average =
    run.average_decay > 0 ? new WeightAverage(resumed?.average ?? state.parameters, run.average_decay) : undefined;
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
    await exchanger?.release();
    await outside?.release();
    await step.release();
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
