import { setTimeout as pause } from "node:timers/promises";
import { expect, test } from "vitest";
import { ndarray } from "../../src/tensor/array.ts";
import type { LoadedBatch } from "../../src/training/batch-loader.ts";
import { learningRate, type Schedule } from "../../src/training/schedule.ts";
import type { Stage } from "../../src/training/stages/stage.ts";
import type { TrainingStep } from "../../src/training/step.ts";
import { type StepReport, type TrainOptions, train } from "../../src/training/trainer.ts";
import { feedsOf, stepOf } from "../helpers/regression.ts";

const schedule: Schedule = { initLr: 0.02, minLr: 0.001, warmupLr: 0, warmupSteps: 2, totalSteps: 10 };

/** What the texts of a sample are worth: its target y, or nothing where they are empty. */
const targetOf = (texts: readonly string[]) => texts.map(Number)[0];

/** A stage whose images are two numbers and whose texts are the target. */
const stage: Pick<Stage, "compose"> = {
  compose(samples) {
    const known = samples.flatMap(({ pair }, i) => {
      const y = targetOf(pair.texts);
      return y === undefined ? [] : [{ y, i }];
    });
    return {
      targets: known.length,
      tokens: known.length,
      places: samples.length,
      feeds: ({ data }, { targets }) =>
        feedsOf(
          known.map(({ y, i }) => ({ x: [data[2 * i] as number, data[2 * i + 1] as number], y })),
          targets,
        ),
    };
  },
};

const frozen: TrainOptions["frozen"] = {
  async compute(images) {
    const rows = images.map((image) => ("features" in image ? [...image.features] : []));
    return ndarray("float32", [images.length, 2], Float32Array.from(rows.flat()));
  },
};

/** The batch of a step, of samples with these targets. */
function batchOf(step: number, targets: readonly (number | undefined)[]): LoadedBatch {
  return {
    samples: targets.map((y, i) => ({
      pair: {
        name: `step${step}/${i}.png`,
        image: { path: "" },
        texts: y === undefined ? [] : [String(y)],
      },
      dataset: 0,
      image: { features: Float32Array.of(i + 1, step % 3) },
    })),
    place: { streams: [{ epoch: 0, part: 0, position: step }], behind: [] },
  };
}

async function run(
  targets: (step: number) => readonly (number | undefined)[],
  options: Partial<TrainOptions> & { readonly session?: { readonly accumulates: boolean } } = {},
) {
  const { session, ...rest } = options;
  const step = await stepOf({}, session);
  const reports: StepReport[] = [];
  const warnings: string[] = [];
  let next = 0;
  const outcome = await train(step, {
    stage,
    schedule,
    frozen,
    batches: { next: async () => batchOf(next, targets(next++)) },
    batchSize: 8,
    seed: 1,
    onWarning: (message) => warnings.push(message),
    ...rest,
    async onStep(report) {
      reports.push(report);
      await rest.onStep?.(report);
    },
  }).catch((error: Error) => error);
  const values = valuesOf(step);
  await step.close();
  return { step, reports, warnings, values, error: outcome instanceof Error ? outcome : undefined };
}

const valuesOf = ({ state: { parameters } }: TrainingStep) =>
  Object.values(parameters).flatMap(({ data }) => [...data]);

test("each step is reported with its place, rate, counts and time", async () => {
  const { reports, error } = await run(() => [1, 2, undefined]);
  expect(error).toBe(undefined);
  expect(reports.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  reports.forEach((report, i) => {
    expect(report).toMatchObject({
      totalSteps: 10,
      learningRate: learningRate(i, schedule),
      tokens: 2,
      places: 3,
      place: { streams: [{ position: i }] },
    });
    expect(report.loss).toBeGreaterThan(0);
    expect(report.gradNorm).toBeGreaterThan(0);
    expect(report.dataSeconds).toBeGreaterThanOrEqual(0);
    expect(report.seconds).toBeGreaterThanOrEqual(report.dataSeconds);
  });
});

test("the time spent waiting for data is told apart", async () => {
  let next = 0;
  const batches = {
    async next() {
      await pause(60);
      return batchOf(next++, [1]);
    },
  };
  const { reports } = await run(() => [], { batches, lastStep: 2 });
  for (const { seconds, dataSeconds } of reports) {
    expect(dataSeconds).toBeGreaterThan(0.05);
    expect(seconds).toBeGreaterThan(dataSeconds);
  }
  const quick = await run(() => [1], { lastStep: 2, onStep: () => pause(60) });
  for (const { dataSeconds } of quick.reports) expect(dataSeconds).toBeLessThan(0.05);
});

test("a step of several batches gives what one of all samples gives, also where one of them has no texts", async () => {
  const targets = (step: number) => [1, 2, step, undefined, undefined, 5, 6];
  const whole = await run(targets);
  const parted = await run(targets, { batchSize: 2, session: { accumulates: true } });
  const last = await run((step) => [...targets(step), undefined, undefined], {
    batchSize: 3,
    session: { accumulates: true },
  });
  for (const { reports, values } of [parted, last]) {
    reports.forEach(({ loss }, i) => {
      expect(loss).toBeCloseTo(whole.reports[i]?.loss as number, 4);
    });
    values.forEach((value, i) => {
      expect(value).toBeCloseTo(whole.values[i] as number, 5);
    });
  }
});

test("a step without any text is an error that names its samples; the state is that of the step before", async () => {
  const { error, step, reports } = await run((i) => (i === 3 ? [undefined, undefined] : [1, 2]));
  expect(error?.message).toBe(
    "The batch of step 4 has nothing to learn: all its texts are empty, or too few of its images can be read. Its samples: step3/0.png, step3/1.png",
  );
  expect([step.state.step, reports.length]).toEqual([3, 3]);
});

test("a loss that is no number names the step and its samples, as many as one can read", async () => {
  const { error, step } = await run((i) => (i === 2 ? Array(20).fill(Number.NaN) : [1, 2]), { batchSize: 32 });
  expect(error?.message).toMatch(
    /^The loss of step 3 is NaN\. Its samples: step2\/0\.png, .*step2\/15\.png and 4 more$/,
  );
  expect(step.state.step).toBe(2);
});

test("a loss that jumps is told with the step and its samples, and the run goes on", async () => {
  const long = { ...schedule, initLr: 0, minLr: 0, totalSteps: 60 };
  const { warnings, reports } = await run((i) => [i === 40 ? 50 : 2, 1 + 0.01 * (i % 5)], { schedule: long });
  expect(reports).toHaveLength(60);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(
    /^Step 41: the loss jumped to \d+\.\d+ from about \d+\.\d+; .*Its samples: step40\/0\.png, step40\/1\.png$/,
  );
});

test("it stops after the last step, and between two steps where it is told to", async () => {
  expect((await run(() => [1], { lastStep: 4 })).step.state.step).toBe(4);
  expect((await run(() => [1], { lastStep: 400 })).step.state.step).toBe(10);
  const stop = new AbortController();
  const stopped = await run(() => [1], {
    signal: stop.signal,
    onStep: ({ step }) => {
      if (step === 6) stop.abort();
    },
  });
  expect([stopped.step.state.step, stopped.error]).toEqual([6, undefined]);
});

test("chance depends on the seed and the step alone", async () => {
  const drawn = async (seed: number) => {
    const numbers: number[] = [];
    const chancy: typeof stage = {
      compose(samples, random) {
        numbers.push(random.uniform());
        return stage.compose(samples, random);
      },
    };
    await run(() => [1], { stage: chancy, seed });
    return numbers;
  };
  const numbers = await drawn(7);
  expect(await drawn(7)).toEqual(numbers);
  expect(new Set([...numbers, ...(await drawn(8))]).size).toBe(20);
});
