/** Metrics of a run as data for charts, and a summary of them. */
import { best, type Point, readCurves, smooth } from "../../src/training/metrics/curves.ts";
import type { Metric } from "../../src/training/metrics/metrics.ts";

/** The steps, then the values of each curve at each step; null where it has none. */
export type Table = [steps: number[], ...curves: (number | null)[][]];

export interface Summary {
  readonly step?: number;
  /** Smoothed. */
  readonly loss?: number;
  /** The lowest validation loss and its step. */
  readonly best?: Point;
  readonly learningRate?: number;
  readonly tokensPerSecond?: number;
  /** When the last metric was logged, in seconds since 1970. */
  readonly time?: number;
}

export interface Samples {
  readonly step: number;
  readonly samples: readonly { readonly image: string; readonly text: string }[];
}

/** Loss per step, its moving average, and validation loss. @param weight of earlier steps in the average, 0 <= weight < 1 */
export function lossTable(metrics: readonly Metric[], weight: number): Table {
  const { loss, validation } = readCurves(metrics);
  return table([loss, smooth(loss, weight), validation]);
}

export function learningRateTable(metrics: readonly Metric[]): Table {
  return table([readCurves(metrics).learningRate]);
}

export function summarize(metrics: readonly Metric[], weight: number): Summary {
  const { loss, validation, learningRate } = readCurves(metrics);
  const last = metrics.at(-1);
  const trained = metrics.findLast((metric) => metric.kind === "train");
  return {
    step: last?.step,
    loss: smooth(loss, weight).at(-1)?.value,
    best: best(validation),
    learningRate: learningRate.at(-1)?.value,
    tokensPerSecond: trained?.tokens_per_second,
    time: last?.time,
  };
}

/** The logged samples, latest first. */
export function samplesNewestFirst(metrics: readonly Metric[]): readonly Samples[] {
  return metrics.flatMap((metric) => (metric.kind === "samples" ? [metric] : [])).toReversed();
}

/** The file name of a path, with either kind of slash. */
export function fileName(image: string): string {
  return image.split(/[/\\]/).at(-1) ?? image;
}

function table(curves: readonly (readonly Point[])[]): Table {
  const steps = [...new Set(curves.flatMap((points) => points.map(({ step }) => step)))].sort((a, b) => a - b);
  const columns = curves.map((points) => {
    const values = new Map(points.map(({ step, value }) => [step, value]));
    return steps.map((step) => values.get(step) ?? null);
  });
  return [steps, ...columns];
}
