import { expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { SpikeDetector } from "../../src/training/schedule.ts";

/** Steps at which a spike is detected. */
function spikes(losses: readonly number[]): number[] {
  const detector = new SpikeDetector();
  return losses.flatMap((loss, step) => (detector.check(loss) === undefined ? [] : [step]));
}

/** A loss that falls from 7 to 2.5, with noise. */
function falling(steps: number, noise: number, seed = 1): number[] {
  const random = new Random(seed);
  return Array.from({ length: steps }, (_, step) => 2.5 + 4.5 * Math.exp(-step / 100) + noise * random.normal());
}

test("no spike is detected in a normal run, whether its loss is smooth or noisy", () => {
  for (const noise of [0, 0.02, 0.1, 0.4]) {
    for (let seed = 0; seed < 10; seed++) expect(spikes(falling(2000, noise, seed))).toEqual([]);
  }
});

test.each([0.02, 0.1, 0.3])("a jump is detected at its step, with noise of %d", (noise) => {
  const losses = falling(600, noise);
  losses[400] = 9;
  expect(spikes(losses)).toEqual([400]);
});

test("a loss that stays high is reported once or twice, not at every step", () => {
  const losses = falling(600, 0.05).map((loss, step) => (step < 300 ? loss : loss + 5));
  const steps = spikes(losses);
  expect(steps[0]).toBe(300);
  expect(steps.length).toBeLessThanOrEqual(3);
});

test("neither the first steps nor a drop are spikes", () => {
  expect(spikes([7, 30, 2, 12, 5, 9])).toEqual([]);
  expect(spikes([...Array(100).fill(7), ...Array(100).fill(0.5)])).toEqual([]);
});

test("the message names the loss and its running mean", () => {
  const detector = new SpikeDetector();
  for (let i = 0; i < 50; i++) expect(detector.check(2.25)).toBe(undefined);
  expect(detector.check(8.5)).toBe("the loss jumped to 8.500 from about 2.250; if it stays there, lower run.init_lr.");
});
