/** A run of a recipe: the contrastive stage where there is one, the stage itself, and the model folder. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { listPairs } from "../data/dataset.ts";
import { layeredWeights } from "../nn/layered-weights.ts";
import { weightsInMemory } from "../nn/weights.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { Checkpoints, type NamedArrays, type RunState } from "./checkpoints.ts";
import { Describer } from "./describer.ts";
import { MetricsLog } from "./metrics/metrics.ts";
import { type Prepared, prepare } from "./prepared.ts";
import { type Recipe, trainsHead } from "./recipe.ts";
import { saveModelFolder } from "./save.ts";
import { type RunEvents, runStage, type StageRun } from "./stage-run.ts";
import { captionStage } from "./stages/caption-stage.ts";
import { contrastiveStage } from "./stages/contrastive-stage.ts";
import { Validation } from "./validation.ts";

export interface RunOptions extends SessionOptions, RunEvents {
  /** Goes on from the newest checkpoint in the output folder. */
  readonly resume?: boolean;
  /** Begins anew where the output folder holds a run. */
  readonly overwrite?: boolean;
  readonly signal?: AbortSignal;
}

/** In the order in which they are run. */
const stages = ["contrastive", "captions"] as const;

/** Runs a recipe. @returns the folder of the trained model, which `MiniGPT4.load` takes */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  const { run } = recipe;
  const checkpoints = new Checkpoints(run.output_dir, stages, run.keep_last);
  const resumed = await begin(run.output_dir, checkpoints, options);
  const prepared = await prepare(recipe, {
    ...sessionOf(options),
    problemsPath: join(run.output_dir, "broken.jsonl"),
    ...(options.onMessage && { onMessage: options.onMessage }),
  });
  try {
    const begun = await contrastiveWeights(prepared, checkpoints, options, resumed);
    const trained = trainsHead(recipe.model)
      ? begun
      : await captionWeights(prepared, checkpoints, options, begun, resumed);
    await saveModelFolder(recipe, prepared.parts, trained);
    return run.output_dir;
  } finally {
    await prepared.close();
  }
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

/** Removes what a killed process left half-written: as large as checkpoints are, they would fill the disk one day. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const place of [folder, join(folder, "checkpoints")]) {
    const names = await readdir(place).catch(() => []);
    const left = names.filter((name) => /\.(safetensors|json|jsonl)(\.[\w-]+)?\.partial$/.test(name));
    for (const name of left) await rm(join(place, name), { force: true });
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

/** Steps and rates of the run itself. */
function stepsOf({ recipe: { run }, totalSteps }: Prepared): Pick<StageRun, "schedule" | "batchSize" | "accumulate"> {
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

function openMetrics({ run }: Recipe, stage: string | undefined, resumed: RunState | undefined): Promise<MetricsLog> {
  return MetricsLog.open(run.output_dir, {
    ...(stage !== undefined && { stage }),
    ...(resumed && { resumeAt: resumed.state.step }),
  });
}

/** What all stages have in common. */
function stageRunOf(
  { recipe }: Prepared,
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
