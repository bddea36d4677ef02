/** Runs a recipe: opens what it names, trains its stages in order, and writes the folder of the trained model. */

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { listPairs } from "../data/dataset.ts";
import { removeAbandoned } from "../files/atomic.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { overlayWeights, type WeightSource, weightsInMemory } from "../tensor/weight-source.ts";
import { Checkpoints, type NamedArrays, type TrainerCheckpoint } from "./checkpoints.ts";
import { Describer } from "./describer.ts";
import { layersFolder, openOffloaded } from "./layer-offload.ts";
import { MetricsLog } from "./metrics/metrics.ts";
import { type ModelParts, openParts, openQFormerParts } from "./parts.ts";
import { isPretraining, type MiniGPT4Recipe, type QFormerRecipe, type Recipe, trainsHead } from "./recipe.ts";
import { saveModelFolder, saveQFormerFolder } from "./save.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import { qformerStage } from "./stages/representation-stage.ts";
import type { Stage } from "./stages/stage.ts";
import { readPrompts, type TrainingPrompt } from "./stages/texts.ts";
import { readSettings, Trainer, type TrainerEvents, type TrainerSettings } from "./trainer.ts";
import { TrainingData } from "./training-data.ts";

export interface RunOptions extends Pick<SessionOptions, "device" | "threads">, TrainerEvents {
  /** Resume from the newest checkpoint in the output folder. */
  readonly resume?: boolean;
  /** Start again where the output folder already contains a run. */
  readonly overwrite?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Runs a recipe.
 *
 * @returns the output folder: a model that `MiniGPT4.load` takes, or a pre-trained Q-Former
 * @throws Error if the output folder already contains a run and neither `resume` nor `overwrite` is set
 *
 * @example
 * ```ts
 * import { MiniGPT4 } from "minigpt4";
 * import { readRecipe, runRecipe } from "minigpt4/training";
 *
 * const { recipe } = await readRecipe("stage2.yaml");
 * const folder = await runRecipe(recipe, { threads: 8, resume: true });
 * await using model = await MiniGPT4.load(folder);
 * console.log(await model.describe("cat.jpg"));
 * ```
 */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  if (isPretraining(recipe)) await pretrainQFormer(recipe, options);
  else await trainMiniGPT4(recipe, options);
  return recipe.run.output_dir;
}

/** The contrastive stage, where the recipe has one, then the captions. */
async function trainMiniGPT4(recipe: MiniGPT4Recipe, options: RunOptions): Promise<void> {
  const run = await Run.open(recipe, ["contrastive", "captions"], options);
  await using parts = await openParts(recipe);
  await using data = await TrainingData.open(recipe, parts, run.dataOptions);
  const prompts = await readPrompts(recipe, parts.llm.tokenizer);

  let trained: NamedArrays = {};
  if (run.resumeFrom?.stage !== "captions") trained = await trainContrastive(recipe, { run, parts, data });
  if (!trainsHead(recipe.model)) trained = await trainCaptions(recipe, { run, parts, data, prompts, initial: trained });
  await saveModelFolder(recipe, parts, trained);
}

/** BLIP-2's first stage. */
async function pretrainQFormer(recipe: QFormerRecipe, options: RunOptions): Promise<void> {
  const run = await Run.open(recipe, ["representation"], options);
  await using parts = await openQFormerParts(recipe);
  await using data = await TrainingData.open(recipe, parts, run.dataOptions);

  const stage = qformerStage(recipe, parts, data.textsOf);
  const settings = readSettings(recipe, await data.countSteps());
  const trained = await run.train(stage, { data, source: parts.image, settings });
  options.signal?.throwIfAborted();
  await saveQFormerFolder(recipe, parts, trained);
}

interface StageInputs {
  readonly run: Run;
  readonly parts: ModelParts;
  readonly data: TrainingData;
}

/** @returns the weights that the captions start from, or those of the contrastive head where that is what is trained */
async function trainContrastive(recipe: MiniGPT4Recipe, { run, parts, data }: StageInputs): Promise<NamedArrays> {
  const settings = contrastiveSettings(recipe, await data.countSteps());
  if (!settings) return {};
  const pairs = await Promise.all(data.datasets.map((dataset) => listPairs(dataset)));
  const { stage, source, fixed } = await contrastiveStage({ recipe, parts, textsOf: data.textsOf, pairs });
  const weights = await run.train(stage, { data, source, settings, metricsName: stage.name });
  run.options.signal?.throwIfAborted();
  if (trainsHead(recipe.model)) return { ...weights, ...fixed };
  return Object.fromEntries(Object.entries(weights).filter(([name]) => parts.isTrained(name)));
}

/** Settings of the contrastive stage; undefined where the recipe has none. */
function contrastiveSettings(recipe: MiniGPT4Recipe, totalSteps: number): TrainerSettings | undefined {
  const settings = readSettings(recipe, totalSteps);
  if (trainsHead(recipe.model)) return settings;
  const { contrastive } = recipe.run;
  if (!contrastive) return undefined;
  const { init_lr: initLr, warmup_steps: warmupSteps, steps } = contrastive;
  const schedule = { initLr, minLr: initLr * 0.02, warmupLr: 0, warmupSteps, totalSteps: steps };
  return { ...settings, schedule, batchSize: contrastive.batch_size, accumulate: 1 };
}

async function trainCaptions(
  recipe: MiniGPT4Recipe,
  {
    run,
    parts,
    data,
    prompts,
    initial,
  }: StageInputs & { readonly prompts: readonly TrainingPrompt[]; readonly initial: NamedArrays },
): Promise<NamedArrays> {
  const { session } = run;
  const source = overlayWeights([weightsInMemory("weights of the contrastive stage", initial), parts.image]);
  await using offloaded = await openOffloaded(recipe, parts, prompts, { ...run.options, session });
  const stage = captionStage({ recipe, parts, offloaded, source, prompts, textsOf: data.textsOf });

  const [prompt] = prompts;
  const samples = data.validation.slice(0, recipe.run.describe);
  await using describer =
    prompt && samples.length > 0
      ? await Describer.create({ parts, source, prompt, samples, data, session })
      : undefined;
  return await run.train(stage, { data, source, describer, settings: readSettings(recipe, await data.countSteps()) });
}

/** The output folder of a run and the checkpoint that it resumes from. */
class Run {
  readonly options: RunOptions;
  readonly resumeFrom: TrainerCheckpoint | undefined;
  private readonly folder: string;
  private readonly checkpoints: Checkpoints;

  private constructor(
    options: RunOptions,
    folder: string,
    checkpoints: Checkpoints,
    resumeFrom: TrainerCheckpoint | undefined,
  ) {
    this.options = options;
    this.folder = folder;
    this.checkpoints = checkpoints;
    this.resumeFrom = resumeFrom;
  }

  /** @param stages names of the recipe's stages in the order they run */
  static async open({ run }: Recipe, stages: readonly string[], options: RunOptions): Promise<Run> {
    const { output_dir: folder, keep_last: keepLast } = run;
    const checkpoints = new Checkpoints(folder, stages, keepLast);
    await removeLeftovers(folder);
    if (options.resume) {
      return new Run(options, folder, checkpoints, await checkpoints.latest(options.onMessage));
    }
    if (!(await checkpoints.isEmpty())) {
      if (!options.overwrite) {
        throw new Error(
          `${folder} already contains a run. Pass --resume to continue it, --overwrite to start again, or set another run.output_dir`,
        );
      }
      await checkpoints.clear();
    }
    await mkdir(folder, { recursive: true });
    await rm(join(folder, "broken.jsonl"), { force: true });
    return new Run(options, folder, checkpoints, undefined);
  }

  get session(): SessionOptions {
    const { device, threads } = this.options;
    return { device, threads };
  }

  get dataOptions() {
    const { session, options, folder } = this;
    return { session, brokenLog: join(folder, "broken.jsonl"), onMessage: options.onMessage };
  }

  /**
   * Trains a stage, from the run's checkpoint if it is one of this stage.
   *
   * @param metricsName of the stage's own metrics; those of the run by default
   * @returns the best weights
   */
  async train(
    stage: Stage,
    {
      metricsName,
      ...options
    }: {
      readonly data: TrainingData;
      readonly source: WeightSource;
      readonly settings: TrainerSettings;
      readonly describer?: Describer;
      readonly metricsName?: string;
    },
  ): Promise<NamedArrays> {
    const { folder, checkpoints, session } = this;
    const resumeFrom = this.resumeFrom?.stage === stage.name ? this.resumeFrom : undefined;
    await using metrics = await MetricsLog.open(folder, { stage: metricsName, resumeAt: resumeFrom?.state.step });
    await using trainer = await Trainer.create({
      ...options,
      stage,
      resumeFrom,
      output: { folder, checkpoints, metrics },
      events: this.options,
      signal: this.options.signal,
      session,
    });
    return await trainer.run();
  }
}

/** Removes what a killed process left: unfinished files and offloaded layers, which are as large as the model. */
async function removeLeftovers(folder: string): Promise<void> {
  await rm(join(folder, layersFolder), { recursive: true, force: true });
  const isPartial = (name: string) => /\.(safetensors|json|jsonl)(\.[\w-]+)?\.partial$/.test(name);
  for (const place of [folder, join(folder, "checkpoints")]) await removeAbandoned(place, isPartial, { olderThan: 0 });
}
