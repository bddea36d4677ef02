/** Metrics of a run as chart data. */
import { expect, test } from "vitest";
import type { Metric } from "../../src/training/metrics/metrics.ts";
import { fileName, learningRateTable, lossTable, samplesNewestFirst, summarize } from "../../web/training/series.ts";

const train = (step: number, loss: number | null): Metric =>
  ({ kind: "train", step, time: 100 + step, loss, learning_rate: step / 1000, tokens_per_second: 10 * step }) as Metric;
const validation = (step: number, loss: number): Metric => ({ kind: "validation", step, time: 100 + step, loss });
const samples = (step: number, text: string): Metric => ({
  kind: "samples",
  step,
  time: 100 + step,
  samples: [{ image: "a/b.jpg", text }],
});
const run = [
  validation(0, 5),
  samples(0, "noise"),
  train(1, 4),
  train(2, 2),
  train(3, null),
  validation(3, 2.5),
  samples(3, "a dog"),
];

test("curves share their steps, with gaps for missing and non-finite values", () => {
  expect(lossTable(run, 0)).toEqual([
    [0, 1, 2, 3],
    [null, 4, 2, null],
    [null, 4, 2, null],
    [5, null, null, 2.5],
  ]);
  const [, , smoothed] = lossTable(run, 0.5);
  expect(smoothed).toEqual([null, 4, (2 + 4 / 2) / 1.5, null]);
  expect(learningRateTable(run)).toEqual([
    [1, 2, 3],
    [0.001, 0.002, 0.003],
  ]);
  expect(lossTable([], 0.9)).toEqual([[], [], [], []]);
});

test("the summary has the latest values and the best validation loss", () => {
  expect(summarize(run, 0)).toEqual({
    step: 3,
    loss: 2,
    best: { step: 3, value: 2.5 },
    learningRate: 0.003,
    tokensPerSecond: 30,
    time: 103,
  });
  expect(summarize([], 0)).toMatchObject({ step: undefined, loss: undefined, best: undefined });
});

test("samples come latest first, and images are named by file", () => {
  expect(samplesNewestFirst(run).map(({ step, samples: [first] }) => [step, first?.text])).toEqual([
    [3, "a dog"],
    [0, "noise"],
  ]);
  expect(["a/b.jpg", "C:\\a\\b.jpg", "b.jpg"].map(fileName)).toEqual(["b.jpg", "b.jpg", "b.jpg"]);
});
