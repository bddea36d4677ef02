/** The training loop: it knows batches, a step and a schedule, but no model. */
import type { NdArray } from "../tensor/array.ts";
import type { WeightAverage } from "./average.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import type { TrainingStep } from "./step.ts";

/** What is reported after each step. */
export interface StepReport {
  /** Steps that were taken, this one included. */
  readonly step: number;
  readonly totalSteps: number;
  readonly loss: number;
  readonly learningRate: number;
  /** Of this step, and the part of it that was spent on making the batch. */
  readonly seconds: number;
  readonly dataSeconds: number;
}

export interface TrainOptions {
  readonly schedule: Schedule;
  /** The batch of the next step, and names of its samples for messages. */
  nextBatch(): Promise<{ readonly feeds: Record<string, NdArray>; readonly names: readonly string[] }>;
  /** A running average to update; it begins where `step.state` stands. */
  readonly average: WeightAverage;
  readonly onStep?: (report: StepReport) => void | Promise<void>;
  readonly signal?: AbortSignal;
}

/**
 * Takes the steps from where the state stands to the end of the schedule, or until the signal.
 * @throws Error naming the batch's samples if the loss is no number
 */
export async function train(step: TrainingStep, options: TrainOptions): Promise<void> {
  const { schedule, average, onStep, signal } = options;
  while (step.state.step < schedule.totalSteps && !signal?.aborted) {
    const started = performance.now();
    const { feeds, names } = await options.nextBatch();
    const dataSeconds = (performance.now() - started) / 1000;
    const rate = learningRate(step.state.step, schedule);
    const { loss } = await step.run(feeds, rate);
    const value = loss.data[0] as number;
    if (!Number.isFinite(value)) {
      throw new Error(`The loss of step ${step.state.step} is ${value}; its samples: ${names.join(", ")}`);
    }
    average.update(step.state.parameters, step.state.step);
    await onStep?.({
      step: step.state.step,
      totalSteps: schedule.totalSteps,
      loss: value,
      learningRate: rate,
      seconds: (performance.now() - started) / 1000,
      dataSeconds,
    });
  }
}
