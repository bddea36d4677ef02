/** A run of a recipe, from its first step or a checkpoint to the folder of what was trained. */

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { listPairs } from "../data/dataset.ts";
import { removeAbandoned } from "../files/atomic.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { overlayWeights, weightsInMemory } from "../tensor/weight-source.ts";
import { Checkpoints, type NamedArrays, type RunState } from "./checkpoints.ts";
import { Describer } from "./describer.ts";
import { layersFolder, openLayered } from "./layered-loss.ts";
import { MetricsLog } from "./metrics/metrics.ts";
import { type Prepared, type PreparedData, type PrepareOptions, prepare, prepareQFormer, stageOf } from "./prepare.ts";
import {
  isPretraining,
  type MiniGPT4Recipe,
  type QFormerRecipe,
  type Recipe,
  type RecipeBase,
  trainsHead,
} from "./recipe.ts";
import { saveModelFolder, saveQFormerFolder } from "./save.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import { type RunEvents, runStage, type StageRun } from "./trainer.ts";
import { QFormerValidation, Validation } from "./validation.ts";

// What the runs of all recipes have in common: options, steps and rates, metrics.

export interface RunOptions extends SessionOptions, RunEvents {
  /** Goes on from the newest checkpoint in the output folder. */
  readonly resume?: boolean;
  /** Begins anew where the output folder holds a run. */
  readonly overwrite?: boolean;
  readonly signal?: AbortSignal;
}

/** What a run has when it begins. */
interface Begun {
  readonly checkpoints: Checkpoints;
  /** The state to go on from, if there is one. */
  readonly resumed: RunState | undefined;
  readonly options: RunOptions;
}

/** Steps and rates of the run itself. */
function stepsOf({
  recipe: { run },
  totalSteps,
}: PreparedData): Pick<StageRun, "schedule" | "batchSize" | "accumulate"> {
  return {
    schedule: {
      initLr: run.init_lr,
      minLr: run.min_lr,
      warmupLr: run.warmup_lr,
      warmupSteps: run.warmup_steps,
      totalSteps,
    },
    batchSize: run.batch_size,
    accumulate: run.accum_grad_iters,
  };
}

function openMetrics(
  { run }: RecipeBase,
  stage: string | undefined,
  resumed: RunState | undefined,
): Promise<MetricsLog> {
  return MetricsLog.open(run.output_dir, {
    ...(stage !== undefined && { stage }),
    ...(resumed && { resumeAt: resumed.state.step }),
  });
}

/** What all stages have in common. */
function stageRunOf(
  { recipe }: PreparedData,
  checkpoints: Checkpoints,
  metrics: MetricsLog,
  { onStep, onValidation, onSamples, onMessage, signal, ...session }: RunOptions,
) {
  return {
    checkpoints,
    metrics,
    saveEvery: recipe.run.save_every,
    session: sessionOf(session),
    ...(onStep && { onStep }),
    ...(onValidation && { onValidation }),
    ...(onSamples && { onSamples }),
    ...(onMessage && { onMessage }),
    ...(signal && { signal }),
  };
}

/** Only what concerns the engine. */
function sessionOf({ device, threads }: SessionOptions): SessionOptions {
  return { ...(device && { device }), ...(threads && { threads }) };
}

// A run that trains a MiniGPT-4: the contrastive stage where there is one, the stage itself, and the model folder.

/** In the order in which they are run. */
const miniGPT4Stages = ["contrastive", "captions"] as const;

/** Runs a recipe to its model folder. */
async function trainMiniGPT4(
  recipe: MiniGPT4Recipe,
  prepareOptions: PrepareOptions,
  { checkpoints, resumed, options }: Begun,
): Promise<void> {
  const prepared = await prepare(recipe, prepareOptions);
  try {
    const begun = await contrastiveWeights(prepared, checkpoints, options, resumed);
    const trained = trainsHead(recipe.model)
      ? begun
      : await throughLayers(prepared, options, (ready) => captionWeights(ready, checkpoints, options, begun, resumed));
    await saveModelFolder(recipe, prepared.parts, trained);
  } finally {
    await prepared.close();
  }
}

/**
 * The first stage, where the recipe has one that is not over.
 * @returns the weights that the captions begin with, or those of the contrastive head where that is trained
 */
async function contrastiveWeights(
  prepared: Prepared,
  checkpoints: Checkpoints,
  options: RunOptions,
  resumed: RunState | undefined,
): Promise<NamedArrays> {
  const { recipe, parts, datasets, textsOf } = prepared;
  const planned = contrastiveSteps(prepared);
  if (!planned || resumed?.stage === "captions") return {};
  const listed = await Promise.all(datasets.map((dataset) => listPairs(dataset)));
  const { stage, source, fixed } = await contrastiveStage(recipe, parts, textsOf, listed);
  const metrics = await openMetrics(recipe, stage.name, resumed);
  try {
    const weights = await runStage(
      prepared,
      stage,
      source,
      { ...stageRunOf(prepared, checkpoints, metrics, options), ...planned },
      resumed,
    );
    options.signal?.throwIfAborted();
    if (trainsHead(recipe.model)) return { ...weights, ...fixed };
    return Object.fromEntries(Object.entries(weights).filter(([name]) => parts.isTrained(name)));
  } finally {
    await metrics.close();
  }
}

/** Steps and rates of the contrastive stage: its own, or the run's where the head is all that is trained. */
function contrastiveSteps(prepared: Prepared): Pick<StageRun, "schedule" | "batchSize" | "accumulate"> | undefined {
  const { contrastive } = prepared.recipe.run;
  if (trainsHead(prepared.recipe.model)) return stepsOf(prepared);
  return (
    contrastive && {
      schedule: {
        initLr: contrastive.init_lr,
        minLr: contrastive.init_lr * 0.02,
        warmupLr: 0,
        warmupSteps: contrastive.warmup_steps,
        totalSteps: contrastive.steps,
      },
      batchSize: contrastive.batch_size,
      accumulate: 1,
    }
  );
}

/** Captions with the language model's layers ready, where it is read layer by layer. */
async function throughLayers(
  prepared: Prepared,
  { signal, onMessage, ...options }: RunOptions,
  train: (prepared: Prepared) => Promise<NamedArrays>,
): Promise<NamedArrays> {
  const { recipe, parts, prompts } = prepared;
  const layered = await openLayered(recipe, parts, prompts, { session: sessionOf(options), signal, onMessage });
  try {
    return await train({ ...prepared, parts: { ...parts, layered } });
  } finally {
    await layered?.close();
  }
}

/** @param begun weights that take the place of those in the recipe's files */
async function captionWeights(
  prepared: Prepared,
  checkpoints: Checkpoints,
  options: RunOptions,
  begun: NamedArrays,
  resumed: RunState | undefined,
): Promise<NamedArrays> {
  const { recipe, parts, prompts, textsOf, validation } = prepared;
  const { run } = recipe;
  const source = overlayWeights([weightsInMemory("the weights of the stage before", begun), parts.image]);
  const stage = captionStage(recipe, parts, source, prompts, textsOf);
  const own = resumed?.stage === stage.name ? resumed : undefined;
  const metrics = await openMetrics(recipe, undefined, own);
  const [prompt] = prompts;
  const session = sessionOf(options);
  const watched = validation.length > 0 && prompt ? { prompt } : undefined;
  const measured =
    watched && (await Validation.create(recipe, parts, source, validation, watched.prompt, textsOf, prepared, session));
  const described = validation.slice(0, run.describe);
  const describer =
    watched && described.length > 0
      ? await Describer.create(parts, source, watched.prompt, described, prepared, session)
      : undefined;
  try {
    const stageOptions: StageRun = {
      ...stageRunOf(prepared, checkpoints, metrics, options),
      ...stepsOf(prepared),
      ...(measured && { watch: { validation: measured, every: run.validate_every, ...(describer && { describer }) } }),
    };
    return await runStage(prepared, stage, source, stageOptions, own);
  } finally {
    await metrics.close();
    await measured?.close();
    await describer?.close();
  }
}

// A run that pre-trains a Q-Former on images and texts.

const qformerStages = ["representation"] as const;

/** Runs a recipe to its folder. */
async function trainQFormer(
  recipe: QFormerRecipe,
  prepareOptions: PrepareOptions,
  { checkpoints, resumed, options }: Begun,
): Promise<void> {
  const prepared = await prepareQFormer(recipe, prepareOptions);
  try {
    const stage = stageOf(prepared);
    const metrics = await openMetrics(recipe, undefined, resumed);
    const validation =
      prepared.validation.length > 0 ? await QFormerValidation.create(prepared, sessionOf(options)) : undefined;
    try {
      const weights = await runStage(
        prepared,
        stage,
        prepared.parts.image,
        {
          ...stageRunOf(prepared, checkpoints, metrics, options),
          ...stepsOf(prepared),
          ...(validation && { watch: { validation, every: recipe.run.validate_every } }),
        },
        resumed,
      );
      options.signal?.throwIfAborted();
      await saveQFormerFolder(recipe, prepared.parts, weights);
    } finally {
      await metrics.close();
      await validation?.close();
    }
  } finally {
    await prepared.close();
  }
}

/** Runs a recipe. @returns the folder of what was trained: a MiniGPT-4 that `MiniGPT4.load` takes, or a Q-Former */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  const { run } = recipe;
  const stages = isPretraining(recipe) ? qformerStages : miniGPT4Stages;
  const checkpoints = new Checkpoints(run.output_dir, stages, run.keep_last);
  const begun = { checkpoints, options, resumed: await begin(run.output_dir, checkpoints, options) };
  const prepareOptions = {
    ...sessionOf(options),
    problemsPath: join(run.output_dir, "broken.jsonl"),
    ...(options.onMessage && { onMessage: options.onMessage }),
  };
  if (isPretraining(recipe)) await trainQFormer(recipe, prepareOptions, begun);
  else await trainMiniGPT4(recipe, prepareOptions, begun);
  return run.output_dir;
}

/** Looks what the output folder holds. @returns the state to go on from */
async function begin(
  folder: string,
  checkpoints: Checkpoints,
  { resume, overwrite, onMessage }: RunOptions,
): Promise<RunState | undefined> {
  await removeLeftovers(folder);
  if (resume) return checkpoints.latest(onMessage);
  if (!(await checkpoints.isEmpty())) {
    if (!overwrite) {
      throw new Error(
        `${folder} holds a run already: go on with --resume, begin anew with --overwrite, or give another run.output_dir`,
      );
    }
    await checkpoints.clear();
  }
  await mkdir(folder, { recursive: true });
  await rm(join(folder, "broken.jsonl"), { force: true });
  return undefined;
}

/** Removes what a killed process left: as large as checkpoints and layers are, they would fill the disk one day. */
async function removeLeftovers(folder: string): Promise<void> {
  await rm(join(folder, layersFolder), { recursive: true, force: true });
  const isPartial = (name: string) => /\.(safetensors|json|jsonl)(\.[\w-]+)?\.partial$/.test(name);
  for (const place of [folder, join(folder, "checkpoints")]) await removeAbandoned(place, isPartial, { olderThan: 0 });
}
