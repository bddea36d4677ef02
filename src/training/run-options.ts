/** What the runs of all recipes have in common: options, steps and rates, metrics. */
import type { SessionOptions } from "../tensor/session.ts";
import type { Checkpoints, RunState } from "./checkpoints.ts";
import { MetricsLog } from "./metrics/metrics.ts";
import type { PreparedData } from "./prepared.ts";
import type { RecipeBase } from "./recipe-sections.ts";
import type { RunEvents, StageRun } from "./stage-run.ts";

export interface RunOptions extends SessionOptions, RunEvents {
  /** Goes on from the newest checkpoint in the output folder. */
  readonly resume?: boolean;
  /** Begins anew where the output folder holds a run. */
  readonly overwrite?: boolean;
  readonly signal?: AbortSignal;
}

/** What a run has when it begins. */
export interface Begun {
  readonly checkpoints: Checkpoints;
  /** The state to go on from, if there is one. */
  readonly resumed: RunState | undefined;
  readonly options: RunOptions;
}

/** Steps and rates of the run itself. */
export function stepsOf({
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

export function openMetrics(
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
export function stageRunOf(
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
export function sessionOf({ device, threads }: SessionOptions): SessionOptions {
  return { ...(device && { device }), ...(threads && { threads }) };
}
