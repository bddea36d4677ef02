/** The curves of a training run over its steps, smoothed and downsampled. */
import type { Metric } from "./metrics.ts";

export interface Point {
  readonly step: number;
  readonly value: number;
}

export interface Curves {
  readonly loss: readonly Point[];
  readonly validation: readonly Point[];
  readonly learningRate: readonly Point[];
}

/** The curves of metrics, ordered by step, without values that are not finite. */
export function readCurves(metrics: readonly Metric[]): Curves {
  const ordered = metrics.toSorted((a, b) => a.step - b.step);
  const curve = (value: (metric: Metric) => number | undefined) =>
    ordered.flatMap((metric) => {
      const found = value(metric);
      return found !== undefined && Number.isFinite(found) ? [{ step: metric.step, value: found }] : [];
    });
  return {
    loss: curve((metric) => (metric.kind === "train" ? metric.loss : undefined)),
    validation: curve((metric) => (metric.kind === "validation" ? metric.loss : undefined)),
    learningRate: curve((metric) => (metric.kind === "train" ? metric.learning_rate : undefined)),
  };
}

/** The point with the smallest value; the earliest of several. */
export function best(points: readonly Point[]): Point | undefined {
  const [first, ...others] = points;
  return first && others.reduce((least, point) => (point.value < least.value ? point : least), first);
}

/**
 * Exponential moving average with its bias towards zero taken out, as TensorBoard smooths:
 * the k-th value is sum_i w^(k-i) (1 - w) x_i / (1 - w^k).
 *
 * @param weight w, that of earlier points; 0 does not smooth
 */
export function smooth(points: readonly Point[], weight: number): Point[] {
  let [sum, mass] = [0, 0];
  return points.map(({ step, value }) => {
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return { step, value: sum / mass };
  });
}

/** Keeps at most two points in each pixel column, the smallest and the largest. @param column x of a step in pixels */
export function thin(points: readonly Point[], column: (step: number) => number): Point[] {
  const kept: Point[] = [];
  for (let start = 0; start < points.length; ) {
    const at = Math.floor(column((points[start] as Point).step));
    let [least, greatest] = [start, start];
    let end = start;
    for (; end < points.length; end++) {
      const { step, value } = points[end] as Point;
      if (Math.floor(column(step)) !== at) break;
      if (value < (points[least] as Point).value) least = end;
      if (value > (points[greatest] as Point).value) greatest = end;
    }
    for (const i of new Set([Math.min(least, greatest), Math.max(least, greatest)])) kept.push(points[i] as Point);
    start = end;
  }
  return kept;
}
