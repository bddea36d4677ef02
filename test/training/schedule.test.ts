import fc from "fast-check";
import { expect, test } from "vitest";
import { learningRate } from "../../src/training/schedule.ts";

const schedule = fc
  .record({
    minLr: fc.double({ min: 0, max: 1e-4, noNaN: true }),
    above: fc.double({ min: 1e-6, max: 1e-2, noNaN: true }),
    warmupSteps: fc.integer({ min: 0, max: 50 }),
    more: fc.integer({ min: 1, max: 200 }),
  })
  .map(({ minLr, above, warmupSteps, more }) => ({
    initLr: minLr + above,
    minLr,
    warmupLr: 0,
    warmupSteps,
    totalSteps: warmupSteps + more,
  }));

test("rises in the warm-up, then falls, and stays between its bounds", () => {
  fc.assert(
    fc.property(schedule, (options) => {
      const rates = Array.from({ length: options.totalSteps }, (_, step) => learningRate(step, options));
      rates.forEach((rate, step) => {
        expect(rate).toBeGreaterThanOrEqual(0);
        expect(rate).toBeLessThanOrEqual(options.initLr * (1 + 1e-9));
        const before = rates[step - 1];
        if (before === undefined || step === options.warmupSteps) return;
        if (step < options.warmupSteps) expect(rate).toBeGreaterThanOrEqual(before);
        else expect(rate).toBeLessThanOrEqual(before * (1 + 1e-12));
      });
    }),
  );
});

test("the cosine's place is the step's place among all steps, the warm-up included", () => {
  const options = { initLr: 1, minLr: 0, warmupLr: 0, warmupSteps: 50, totalSteps: 100 };
  expect(learningRate(50, options)).toBeCloseTo(0.5, 12);
  expect(learningRate(25, options)).toBeCloseTo(0.5, 12);
});
