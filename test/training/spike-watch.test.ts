import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { SpikeWatch } from "../../src/training/schedule.ts";

/** Steps at which something unusual was told. */
function told(losses: readonly number[]): number[] {
  const watch = new SpikeWatch();
  return losses.flatMap((loss, step) => (watch.look(loss) === undefined ? [] : [step]));
}

/** A loss that falls from 7 to 2.5, with noise. */
function falling(steps: number, noise: number, seed = 1): number[] {
  const random = new Random(seed);
  return Array.from({ length: steps }, (_, step) => 2.5 + 4.5 * Math.exp(-step / 100) + noise * random.normal());
}

test("a usual run is not disturbed, whether its loss is calm or noisy", () => {
  for (const noise of [0, 0.02, 0.1, 0.4]) {
    for (let seed = 0; seed < 10; seed++) expect(told(falling(2000, noise, seed))).toEqual([]);
  }
});

test.each([0.02, 0.1, 0.3])("a jump is told at its step, with noise of %d", (noise) => {
  const losses = falling(600, noise);
  losses[400] = 9;
  expect(told(losses)).toEqual([400]);
});

test("a loss that stays high is told once or twice, not at every step", () => {
  const losses = falling(600, 0.05).map((loss, step) => (step < 300 ? loss : loss + 5));
  const steps = told(losses);
  expect(steps[0]).toBe(300);
  expect(steps.length).toBeLessThanOrEqual(3);
});

test("neither the first steps nor a fall are unusual", () => {
  expect(told([7, 30, 2, 12, 5, 9])).toEqual([]);
  expect(told([...Array(100).fill(7), ...Array(100).fill(0.5)])).toEqual([]);
});

test("the message has the loss and its usual range", () => {
  const watch = new SpikeWatch();
  for (let i = 0; i < 50; i++) expect(watch.look(2.25)).toBe(undefined);
  expect(watch.look(8.5)).toBe("the loss jumped to 8.500 from about 2.250; if it stays there, lower run.init_lr.");
});
