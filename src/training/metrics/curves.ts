/** The curves of a training run: what its metrics say over the step, smoothed and thinned out. */
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

/** Values that are no finite numbers are left out; steps ascend. */
export function curvesOf(metrics: readonly Metric[]): Curves {
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

/** The smallest value, the earlier of two. */
export function best(points: readonly Point[]): Point | undefined {
  const [first, ...others] = points;
  return first && others.reduce((least, point) => (point.value < least.value ? point : least), first);
}

/**
 * Exponential moving average with its bias towards zero taken out, as TensorBoard smooths:
 * the k-th value is sum_i w^(k-i) (1 - w) x_i / (1 - w^k).
 *
 * @param weight w, of what came before; 0 leaves the points as they are
 */
export function smooth(points: readonly Point[], weight: number): Point[] {
  let [sum, mass] = [0, 0];
  return points.map(({ step, value }) => {
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return { step, value: sum / mass };
  });
}

/** At most two points in each pixel column, the least and the greatest; `column` is a step's place on the paper, in pixels. */
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
