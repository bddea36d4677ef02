/**
 * Trains one stage of a run. A step goes through
 *
 *     batches -> micro-batches -> features, [external loss], [gradient cache] -> forward, backward, AdamW -> EMA
 *
 * and the trainer around it validates, saves checkpoints, writes metrics and reports.
 */

import type { MixtureState } from "../data/sampling.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { ndarray } from "../tensor/array.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import type { BatchLoader, LoadedSample } from "./batch-loader.ts";
import { BestWeights, type Checkpoints, type NamedArrays, type TrainerCheckpoint } from "./checkpoints.ts";
import type { Describer, Description } from "./describer.ts";
import type { Metric, MetricsLog } from "./metrics/metrics.ts";
import type { RecipeBase } from "./recipe.ts";
import { learningRate, type Schedule, SpikeDetector } from "./schedule.ts";
import {
  type ComposedBatch,
  type ExternalLoss,
  type Feeds,
  type Stage,
  type StepTotals,
  stepRandom,
} from "./stages/stage.ts";
import { NotFiniteError, type OptimizerOptions, TrainingStep } from "./step.ts";
import { Ema, initialState, type TrainingState } from "./training-state.ts";
import { Validation, type ValidationData } from "./validation.ts";

export interface TrainerOptions {
  readonly stage: Stage;
  readonly data: TrainerData;
  /** Initial values of the trained weights. */
  readonly source: WeightSource;
  readonly settings: TrainerSettings;
  /** The checkpoint to resume from. */
  readonly resumeFrom?: TrainerCheckpoint;
  /** Where the run is kept; without it, nothing is written. */
  readonly output?: TrainerOutput;
  /** Describes validation images after each validation. */
  readonly describer?: Describer;
  readonly events?: TrainerEvents;
  /** Stops the run after the current step. */
  readonly signal?: AbortSignal;
  readonly session?: SessionOptions;
}

/** The parts of `TrainingData` that a trainer uses. */
export interface TrainerData extends ValidationData {
  batches(batchSize: number, firstStep: number, position?: MixtureState): TrainerBatches;
}

export type TrainerBatches = Pick<BatchLoader, "next" | "settle" | "position">;

export interface TrainerSettings {
  readonly schedule: Schedule;
  readonly optimizer: OptimizerOptions;
  /** Images of a micro-batch. */
  readonly batchSize: number;
  /** Micro-batches of a step. */
  readonly accumulate: number;
  readonly seed: number;
  /** 0 trains without an EMA. */
  readonly emaDecay: number;
  /** Steps between two validations. */
  readonly validateEvery: number;
  /** Steps between two checkpoints. */
  readonly saveEvery: number;
}

interface TrainerOutput {
  readonly folder: string;
  readonly checkpoints: Checkpoints;
  readonly metrics: MetricsLog;
}

export interface TrainerEvents {
  readonly onStep?: (stage: string, report: StepReport) => void;
  readonly onValidation?: (step: number, loss: number, isBest: boolean) => void;
  readonly onSamples?: (step: number, samples: readonly Description[]) => void;
  readonly onMessage?: (message: string) => void;
}

export interface StepReport {
  /** Completed steps, this one included. */
  readonly step: number;
  readonly totalSteps: number;
  readonly loss: number;
  /** Parts of the loss, where the stage has several. */
  readonly terms: Readonly<Record<string, number>>;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Duration of the step, and how much of it was spent waiting for data. */
  readonly seconds: number;
  readonly dataSeconds: number;
  /** Tokens without padding, and with padding. */
  readonly tokens: number;
  readonly paddedTokens: number;
}

/** The settings of a recipe, with AdamW as in MiniGPT-4. */
export function readSettings({ run }: RecipeBase, totalSteps: number): TrainerSettings {
  return {
    schedule: {
      initLr: run.init_lr,
      minLr: run.min_lr,
      warmupLr: run.warmup_lr,
      warmupSteps: run.warmup_steps,
      totalSteps,
    },
    optimizer: {
      beta1: 0.9,
      beta2: 0.999,
      eps: 1e-8,
      weightDecay: run.weight_decay,
      maxGradNorm: run.max_grad_norm,
    },
    batchSize: run.batch_size,
    accumulate: run.accum_grad_iters,
    seed: run.seed,
    emaDecay: run.ema_decay,
    validateEvery: run.validate_every,
    saveEvery: run.save_every,
  };
}

/** Part of a step's samples, small enough to go through the network together. */
interface MicroBatch {
  readonly samples: readonly LoadedSample[];
  readonly composed: ComposedBatch;
}

export class Trainer {
  private readonly options: TrainerOptions;
  private readonly settings: TrainerSettings;
  private readonly trainingStep: TrainingStep;
  private readonly gradCache: Session | undefined;
  private readonly externalLoss: ExternalLoss | undefined;
  private readonly batches: TrainerBatches;
  private readonly ema: Ema | undefined;
  private readonly validation: Validation | undefined;
  private readonly best: BestWeights | undefined;
  private readonly spikes = new SpikeDetector();
  /** Position in the datasets after the last step, and its learning rate. */
  private position: MixtureState;
  private lastLearningRate: number | undefined;
  private savedStep: number | undefined;

  private constructor(
    options: TrainerOptions,
    trainingStep: TrainingStep,
    gradCache: Session | undefined,
    externalLoss: ExternalLoss | undefined,
  ) {
    const { stage, data, settings, resumeFrom, output } = options;
    const { state } = trainingStep;
    this.options = options;
    this.settings = settings;
    this.trainingStep = trainingStep;
    this.gradCache = gradCache;
    this.externalLoss = externalLoss;
    this.batches = data.batches(settings.batchSize * settings.accumulate, state.step, resumeFrom?.position);
    this.ema = settings.emaDecay > 0 ? new Ema(resumeFrom?.ema ?? state.parameters, settings.emaDecay) : undefined;
    this.validation =
      stage.validation && data.validation.length > 0
        ? new Validation(stage.validation, data, settings.seed)
        : undefined;
    this.best = output && new BestWeights(output.folder, resumeFrom?.best);
    this.position = this.batches.position;
    this.lastLearningRate = resumeFrom?.learningRate;
    this.savedStep = resumeFrom && state.step;
  }

  /** Compiles the stage's graphs, with the weights of the checkpoint or the initial ones. */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { stage, source, settings, resumeFrom, session = {} } = options;
    const accumulates = settings.accumulate > 1;
    const trainingStep = await TrainingStep.create({
      graph: stage.graph,
      loss: stage.loss,
      trained: stage.trained,
      state: resumeFrom?.state ?? initialState(await readWeights(source, stage.trained.keys())),
      optimizer: settings.optimizer,
      accumulates,
      terms: stage.terms,
      evaluation: options.data.validation.length > 0 ? stage.validation?.losses : undefined,
      session,
    });
    const { gradCache } = stage;
    const gradCacheSession =
      gradCache && accumulates ? await Session.create<string>(gradCache.graph, gradCache.outputs, session) : undefined;
    return new Trainer(options, trainingStep, gradCacheSession, await stage.openExternalLoss?.(session));
  }

  /** Weights and optimizer state after the completed steps. */
  get state(): TrainingState {
    return this.trainingStep.state;
  }

  /** The weights that are validated and kept: the EMA, or those of the last step. */
  get weights(): NamedArrays {
    return this.ema?.arrays ?? this.state.parameters;
  }

  /**
   * Trains to the end of the schedule, or until the signal.
   *
   * @returns the weights with the smallest validation loss, or `weights` without validation
   * @throws Error as `step`. The state before the failed step is saved.
   */
  async run(): Promise<NamedArrays> {
    const { stage, output, events, signal, resumeFrom } = this.options;
    const { totalSteps } = this.settings.schedule;
    this.warnOfScheduleChange();
    try {
      if (!resumeFrom) await this.validate();
      await this.save();
      while (this.state.step < totalSteps && !signal?.aborted) {
        const report = await this.step();
        await output?.metrics.write(stepMetric(report));
        events?.onStep?.(stage.name, report);
        const isLast = report.step === totalSteps;
        if (isLast || report.step % this.settings.validateEvery === 0) await this.validate();
        if (report.step % this.settings.saveEvery === 0) await this.save();
      }
      return (await this.best?.read()) ?? this.weights;
    } finally {
      await this.save().catch((error: Error) => events?.onMessage?.(`Saving the checkpoint failed: ${error.message}`));
    }
  }

  /**
   * Takes one step.
   * @throws Error naming the samples if the loss is not finite or nothing has a target. The state is that before the step.
   */
  async step(): Promise<StepReport> {
    const { settings, trainingStep } = this;
    const started = performance.now();
    const { samples, position } = await this.batches.next();
    const dataSeconds = (performance.now() - started) / 1000;

    const rate = learningRate(this.state.step, settings.schedule);
    const microBatches = this.compose(samples);
    const result = await trainingStep.run(this.feeds(microBatches), rate).catch((error: unknown) => {
      if (error instanceof NotFiniteError)
        throw new Error(`${error.message}. ${listSamples(samples)}`, { cause: error });
      throw error;
    });
    this.ema?.update(this.state.parameters, this.state.step);
    this.position = position;
    this.lastLearningRate = rate;

    const spike = this.spikes.check(result.loss);
    if (spike) this.options.events?.onMessage?.(`Step ${this.state.step}: ${spike} ${listSamples(samples)}`);
    return {
      step: this.state.step,
      totalSteps: settings.schedule.totalSteps,
      ...result,
      learningRate: rate,
      seconds: (performance.now() - started) / 1000,
      dataSeconds,
      tokens: sum(microBatches, ({ composed }) => composed.tokens),
      paddedTokens: sum(microBatches, ({ composed }) => composed.paddedTokens),
    };
  }

  /** Measures the validation loss, keeps the weights if it is the smallest so far, and describes images. */
  async validate(): Promise<void> {
    const { output, events, describer } = this.options;
    if (!this.validation) return;
    const step = this.state.step;
    const loss = await this.validation.measure((batch) => this.validationLosses(batch));
    const isBest = (await this.best?.offer(this.weights, { step, loss })) ?? false;
    await output?.metrics.write({ kind: "validation", step, time: now(), loss });
    events?.onValidation?.(step, loss, isBest);
    if (!describer) return;
    const samples = await describer.describe(this.weights);
    await output?.metrics.write({ kind: "samples", step, time: now(), samples });
    events?.onSamples?.(step, samples);
  }

  /** Writes a checkpoint, unless the step has one. */
  async save(): Promise<void> {
    const { stage, output } = this.options;
    const { state } = this;
    if (!output || this.savedStep === state.step) return;
    await output.checkpoints.save({
      stage: stage.name,
      state,
      position: this.position,
      ema: this.ema?.arrays,
      best: this.best?.validation,
      learningRate: this.lastLearningRate,
    });
    this.savedStep = state.step;
  }

  async close(): Promise<void> {
    await this.batches.settle();
    await this.gradCache?.close();
    await this.externalLoss?.close();
    await this.trainingStep.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Divides a step's samples into micro-batches that have targets. */
  private compose(samples: readonly LoadedSample[]): MicroBatch[] {
    const { batchSize, seed } = this.settings;
    const random = stepRandom(seed, this.state.step);
    const microBatches: MicroBatch[] = [];
    for (let start = 0; start < samples.length; start += batchSize) {
      const part = samples.slice(start, start + batchSize);
      const composed = this.options.stage.compose(part, random);
      if (composed.targets > 0) microBatches.push({ samples: part, composed });
    }
    if (microBatches.length > 0) return microBatches;
    throw new Error(
      `Step ${this.state.step + 1} has no targets: all texts of its batch are empty, or too few of its images can be read. ${listSamples(samples)}`,
    );
  }

  /** The inputs of each micro-batch, computed when its turn comes, so that features of one at a time are in memory. */
  private async *feeds(microBatches: readonly MicroBatch[]): AsyncGenerator<Feeds> {
    const totals: StepTotals = {
      targets: sum(microBatches, ({ composed }) => composed.targets),
      samples: sum(microBatches, ({ samples }) => samples.length),
    };
    const { gradCache } = this.options.stage;
    if (!gradCache) {
      for (const microBatch of microBatches) yield this.microBatchFeeds(microBatch, totals);
      return;
    }
    // The embeddings of all micro-batches come first: each is compared with those of the others.
    const batches: Feeds[] = [];
    for (const microBatch of microBatches) batches.push(await this.microBatchFeeds(microBatch, totals));
    const embeddings = await this.embed(batches);
    for (const [i, { samples }] of microBatches.entries()) {
      const others = embeddings.filter((_, other) => other !== i);
      yield { ...batches[i], ...gradCache.feeds(samples.length, others) };
    }
  }

  private async microBatchFeeds({ samples, composed }: MicroBatch, totals: StepTotals): Promise<Feeds> {
    const features = await this.options.data.frozen.compute(samples.map(({ image }) => image));
    const feeds = composed.feeds(features, totals);
    if (!this.externalLoss) return feeds;
    return { ...feeds, ...(await this.externalLoss.feeds({ ...feeds, ...this.state.parameters })) };
  }

  /** The outputs of the gradient cache for each micro-batch; empty where there is one. */
  private async embed(batches: readonly Feeds[]): Promise<Feeds[]> {
    if (batches.length < 2) return [];
    if (!this.gradCache) throw new Error(`A step of ${batches.length} micro-batches needs settings.accumulate > 1`);
    const embeddings: Feeds[] = [];
    for (const feeds of batches) {
      embeddings.push(await this.gradCache.run({ ...feeds, ...this.state.parameters }));
    }
    return embeddings;
  }

  private async validationLosses(batch: Feeds): Promise<Float32Array> {
    if (this.externalLoss) return this.externalLoss.losses({ ...batch, ...this.weights });
    return (await this.trainingStep.evaluate(batch, this.weights)).data as Float32Array;
  }

  /** A schedule that was changed between two parts of a run makes the learning rate jump. */
  private warnOfScheduleChange(): void {
    const { schedule } = this.settings;
    const step = this.state.step;
    if (this.lastLearningRate === undefined || step === 0) return;
    const expected = learningRate(step - 1, schedule);
    if (Math.abs(this.lastLearningRate - expected) <= 1e-6 * expected) return;
    const [last, next] = [this.lastLearningRate, learningRate(step, schedule)].map((rate) => rate.toExponential(2));
    this.options.events?.onMessage?.(
      `The learning rate jumps from ${last} to ${next}: the recipe's schedule was changed since the checkpoint was saved.`,
    );
  }
}

/** Reads weights by name. */
async function readWeights(source: WeightSource, names: Iterable<string>): Promise<NamedArrays> {
  const arrays: NamedArrays = {};
  for (const name of names) {
    arrays[name] = ndarray("float32", source.tensors.get(name)?.shape ?? [], await source.readFloat32(name));
  }
  return arrays;
}

function stepMetric(report: StepReport): Metric {
  return {
    kind: "train",
    step: report.step,
    time: now(),
    loss: report.loss,
    terms: Object.keys(report.terms).length > 0 ? report.terms : undefined,
    learning_rate: report.learningRate,
    grad_norm: report.gradNorm,
    tokens_per_second: report.tokens / report.seconds,
    data_share: report.dataSeconds / report.seconds,
  };
}

/** Samples named in a message. */
const listedSamples = 16;

function listSamples(samples: readonly LoadedSample[]): string {
  const names = samples.slice(0, listedSamples).map(({ pair }) => pair.name);
  const more = samples.length > listedSamples ? ` and ${samples.length - listedSamples} more` : "";
  return `Its samples: ${names.join(", ")}${more}`;
}

function sum(microBatches: readonly MicroBatch[], count: (microBatch: MicroBatch) => number): number {
  return microBatches.reduce((total, microBatch) => total + count(microBatch), 0);
}

/** Unix time in seconds. */
function now(): number {
  return Date.now() / 1000;
}
