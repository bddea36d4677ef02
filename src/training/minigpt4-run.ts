/** A run that trains a MiniGPT-4: the contrastive stage where there is one, the stage itself, and the model folder. */
import { listPairs } from "../data/dataset.ts";
import { layeredWeights } from "../nn/layered-weights.ts";
import { weightsInMemory } from "../nn/weights.ts";
import type { Checkpoints, NamedArrays, RunState } from "./checkpoints.ts";
import { Describer } from "./describer.ts";
import { openLayered } from "./layered/open-layered.ts";
import { type MiniGPT4Recipe, trainsHead } from "./minigpt4-recipe.ts";
import { type Prepared, type PrepareOptions, prepare } from "./prepared.ts";
import { type Begun, openMetrics, type RunOptions, sessionOf, stageRunOf, stepsOf } from "./run-options.ts";
import { saveModelFolder } from "./save.ts";
import { runStage, type StageRun } from "./stage-run.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import { Validation } from "./validation.ts";

/** In the order in which they are run. */
export const miniGPT4Stages = ["contrastive", "captions"] as const;

/** Runs a recipe to its model folder. */
export async function trainMiniGPT4(
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
    await layered?.release();
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
  const source = layeredWeights([weightsInMemory("the weights of the stage before", begun), parts.image]);
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
    await measured?.release();
    await describer?.release();
  }
}
