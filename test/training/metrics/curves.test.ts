import fc from "fast-check";
import { expect, test } from "vitest";
import { best, readCurves, smooth, thin } from "../../../src/training/metrics/curves.ts";

const points = (values: readonly number[]) => values.map((value, i) => ({ step: i + 1, value }));
const values = (curve: readonly { value: number }[]) => curve.map(({ value }) => value);

test("curves ascend by step, and hold only finite numbers", () => {
  const curves = readCurves([
    { step: 2, time: 2, kind: "train", loss: Number.NaN, learning_rate: 2 },
    { step: 1, time: 1, kind: "train", loss: 5, learning_rate: 1 },
    { step: 2, time: 3, kind: "validation", loss: 4 },
    { step: 2, time: 4, kind: "samples", samples: [] },
  ]);
  expect(curves).toEqual({
    loss: [{ step: 1, value: 5 }],
    validation: [{ step: 2, value: 4 }],
    learningRate: [
      { step: 1, value: 1 },
      { step: 2, value: 2 },
    ],
  });
});

test("smoothing weighs the past, and does not pull the beginning towards zero", () => {
  const [first, second, third] = values(smooth(points([4, 2, 8]), 0.5));
  expect(first).toBe(4);
  expect(second).toBeCloseTo((0.5 * 4 + 2) / 1.5, 12);
  expect(third).toBeCloseTo((0.25 * 4 + 0.5 * 2 + 8) / 1.75, 12);
  expect(smooth(points([4, 2, 8]), 0)).toEqual(points([4, 2, 8]));
  expect(values(smooth(points(Array(1000).fill(3)), 0.97)).every((value) => Math.abs(value - 3) < 1e-9)).toBe(true);
});

test("the best is the smallest, the earlier of two; of none there is none", () => {
  expect(best(points([3, 1, 2, 1]))).toEqual({ step: 2, value: 1 });
  expect(best([])).toBeUndefined();
});

test("property: two points a pixel at most, in order, and each pixel's extremes among them", () => {
  fc.assert(
    fc.property(fc.array(fc.double({ noNaN: true })), fc.integer({ min: 1, max: 50 }), (all, stepsPerPixel) => {
      const column = (step: number) => step / stepsPerPixel;
      const pixel = ({ step }: { step: number }) => Math.floor(column(step));
      const given = group(points(all), pixel);
      const kept = thin(points(all), column);
      expect(kept.map(({ step }) => step)).toEqual(kept.map(({ step }) => step).toSorted((a, b) => a - b));
      const left = group(kept, pixel);
      expect([...left.keys()]).toEqual([...given.keys()]);
      for (const [key, group] of given) {
        const seen = values(left.get(key) ?? []);
        expect(seen.length).toBeLessThanOrEqual(2);
        expect(Math.min(...seen)).toBe(Math.min(...values(group)));
        expect(Math.max(...seen)).toBe(Math.max(...values(group)));
      }
    }),
  );
});

function group<T>(items: readonly T[], key: (item: T) => number): Map<number, T[]> {
  const groups = new Map<number, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}
