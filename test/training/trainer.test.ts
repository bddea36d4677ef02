import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, expect, test } from "vitest";
import { ndarray } from "../../src/tensor/array.ts";
import { weightsInMemory } from "../../src/tensor/weight-source.ts";
import type { LoadedBatch, LoadedSample } from "../../src/training/batch-loader.ts";
import { Checkpoints, type NamedArrays } from "../../src/training/checkpoints.ts";
import { MetricsLog, readMetrics } from "../../src/training/metrics/metrics.ts";
import { learningRate, type Schedule } from "../../src/training/schedule.ts";
import type { Stage, StageSample } from "../../src/training/stages/stage.ts";
import {
  type StepReport,
  Trainer,
  type TrainerData,
  type TrainerOptions,
  type TrainerSettings,
} from "../../src/training/trainer.ts";
import { byHand, type Example, optimizer, regression, regressionFeeds, start } from "../helpers/regression.ts";

const root = await mkdtemp(join(tmpdir(), "minigpt4-trainer-"));
afterAll(() => rm(root, { recursive: true, force: true, maxRetries: 3 }));

const schedule: Schedule = { initLr: 0.02, minLr: 0.001, warmupLr: 0, warmupSteps: 2, totalSteps: 10 };
const settings: TrainerSettings = {
  schedule,
  optimizer,
  batchSize: 8,
  accumulate: 1,
  seed: 1,
  emaDecay: 0,
  validateEvery: 4,
  saveEvery: 5,
};
/** New arrays for each run: a trainer takes them over. */
function initialWeights() {
  return weightsInMemory("initial weights", {
    weight: ndarray("float32", [1, 2], Float32Array.from(start.weight)),
    bias: ndarray("float32", [1], Float32Array.from(start.bias)),
  });
}

/** The targets y of samples with a text. */
function targetsOf(samples: readonly StageSample[]) {
  return samples.flatMap(({ pair }, i) => pair.texts.map((text) => ({ y: Number(text), i })));
}

function examples(samples: readonly StageSample[], features: ArrayLike<number>): Example[] {
  return targetsOf(samples).map(({ y, i }) => ({
    x: [features[2 * i] as number, features[2 * i + 1] as number],
    y,
  }));
}

/** Linear regression as a stage: an image is two numbers, its text the target. */
function regressionStage(compose?: Stage["compose"]): Stage {
  const { graph, loss, trained } = regression();
  return {
    name: "regression",
    graph,
    loss,
    trained,
    compose:
      compose ??
      ((samples) => ({
        targets: targetsOf(samples).length,
        tokens: targetsOf(samples).length,
        paddedTokens: samples.length,
        feeds: ({ data }, { targets }) => regressionFeeds(examples(samples, data), targets),
      })),
    validation: {
      batchSize: 2,
      losses: loss,
      compose: (samples) => ({
        weight: targetsOf(samples).length,
        feeds: ({ data }) => regressionFeeds(examples(samples, data)),
      }),
    },
  };
}

function sample(name: string, features: readonly number[], y: number | undefined): LoadedSample {
  return {
    pair: { name, image: { path: "" }, texts: y === undefined ? [] : [String(y)] },
    dataset: 0,
    image: { features: Float32Array.from(features) },
  };
}

type Targets = (step: number) => readonly (number | undefined)[];

/** The batch of a step, with a sample for each target. */
function batchOf(step: number, targets: ReturnType<Targets>): LoadedBatch {
  return {
    samples: targets.map((y, i) => sample(`step${step}/${i}.png`, [i + 1, step % 3], y)),
    position: { streams: [{ epoch: 0, part: 0, position: step }], behind: [] },
  };
}

function dataOf(targets: Targets, { validation = [] }: { readonly validation?: readonly LoadedSample[] } = {}) {
  const data: TrainerData = {
    batches(_size, firstStep) {
      let step = firstStep;
      return {
        position: { streams: [], behind: [] },
        next: async () => batchOf(step, targets(step++)),
        settle: async () => {},
      };
    },
    frozen: {
      async compute(images) {
        const rows = images.map((image) => ("features" in image ? [...image.features] : []));
        return ndarray("float32", [images.length, 2], Float32Array.from(rows.flat()));
      },
    },
    load: async (samples) => samples as readonly LoadedSample[] as LoadedSample[],
    validation,
  };
  return data;
}

interface RunOptions extends Partial<Omit<TrainerOptions, "settings" | "data">> {
  readonly settings?: Partial<TrainerSettings>;
  readonly validation?: readonly LoadedSample[];
  readonly data?: Partial<TrainerData>;
}

async function run(targets: Targets, { settings: own, validation, data, events, ...options }: RunOptions = {}) {
  const reports: StepReport[] = [];
  const messages: string[] = [];
  const losses: number[] = [];
  const trainer = await Trainer.create({
    stage: regressionStage(),
    source: initialWeights(),
    data: { ...dataOf(targets, { validation }), ...data },
    settings: { ...settings, ...own },
    events: {
      onMessage: (message) => messages.push(message),
      onValidation: (_, loss) => losses.push(loss),
      ...events,
      onStep(stage, report) {
        reports.push(report);
        events?.onStep?.(stage, report);
      },
    },
    ...options,
  });
  const result = await trainer.run().catch((error: Error) => error);
  await trainer.close();
  return {
    trainer,
    reports,
    messages,
    losses,
    values: numbers(trainer.state.parameters),
    weights: result instanceof Error ? {} : result,
    error: result instanceof Error ? result : undefined,
  };
}

function numbers(arrays: NamedArrays): number[] {
  return ["weight", "bias"].flatMap((name) => [...(arrays[name]?.data ?? [])]);
}

/** Where a run is kept. */
async function outputIn(folder: string) {
  return { folder, checkpoints: new Checkpoints(folder, ["regression"], 9), metrics: await MetricsLog.open(folder) };
}

test("each step is reported with its number, learning rate, tokens and time", async () => {
  const { reports, error } = await run(() => [1, 2, undefined]);
  expect(error).toBe(undefined);
  expect(reports.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  reports.forEach((report, i) => {
    expect(report).toMatchObject({
      totalSteps: 10,
      learningRate: learningRate(i, schedule),
      tokens: 2,
      paddedTokens: 3,
    });
    expect(report.loss).toBeGreaterThan(0);
    expect(report.gradNorm).toBeGreaterThan(0);
    expect(report.dataSeconds).toBeGreaterThanOrEqual(0);
    expect(report.seconds).toBeGreaterThanOrEqual(report.dataSeconds);
  });
});

test("a step changes the weights by its learning rate", async () => {
  // AdamW's first step without weight decay changes each weight by the learning rate.
  const once = {
    optimizer: { ...optimizer, weightDecay: 0 },
    schedule: { ...schedule, warmupSteps: 0, totalSteps: 1 },
  };
  const { values } = await run(() => [5, 3, 7], { settings: once });
  [...start.weight, ...start.bias].forEach((initial, i) => {
    const change = Math.abs((values[i] as number) - initial);
    // The feature x[1] is 0 in step 0, so its weight has no gradient.
    expect(change).toBeCloseTo(i === 1 ? 0 : 0.02, 5);
  });
});

test("the time spent waiting for data is measured separately", async () => {
  const short = { schedule: { ...schedule, totalSteps: 2 } };
  const slow = dataOf(() => [1]);
  const data = {
    batches: (...args: Parameters<TrainerData["batches"]>) => {
      const batches = slow.batches(...args);
      return {
        ...batches,
        async next() {
          await pause(60);
          return batches.next();
        },
      };
    },
  };
  const { reports } = await run(() => [], { data, settings: short });
  expect(reports).toHaveLength(2);
  for (const { seconds, dataSeconds } of reports) {
    expect(dataSeconds).toBeGreaterThan(0.05);
    expect(seconds).toBeGreaterThan(dataSeconds);
  }
  const quick = await run(() => [1], { settings: short });
  for (const { dataSeconds } of quick.reports) expect(dataSeconds).toBeLessThan(0.05);
});

test("micro-batches give the step of one large batch, also where one of them has no targets", async () => {
  const targets = (step: number) => [1, 2, step, undefined, undefined, 5, 6];
  const whole = await run(targets);
  const parted = await run(targets, { settings: { batchSize: 2, accumulate: 4 } });
  const last = await run((step) => [...targets(step), undefined, undefined], {
    settings: { batchSize: 3, accumulate: 3 },
  });
  for (const { reports, values } of [parted, last]) {
    expect(reports).toHaveLength(10);
    reports.forEach(({ loss }, i) => {
      expect(loss).toBeCloseTo(whole.reports[i]?.loss as number, 4);
    });
    values.forEach((value, i) => {
      expect(value).toBeCloseTo(whole.values[i] as number, 5);
    });
  }
});

test("a step without targets is an error that names its samples; the state is that of the step before", async () => {
  const { error, trainer, reports } = await run((i) => (i === 3 ? [undefined, undefined] : [1, 2]));
  expect(error?.message).toBe(
    "Step 4 has no targets: all texts of its batch are empty, or too few of its images can be read. Its samples: step3/0.png, step3/1.png",
  );
  expect([trainer.state.step, reports.length]).toEqual([3, 3]);
});

test("a loss that is not finite names the step and its first samples", async () => {
  const { error, trainer } = await run((i) => (i === 2 ? Array(20).fill(Number.NaN) : [1, 2]), {
    settings: { batchSize: 32 },
  });
  expect(error?.message).toMatch(
    /^The loss of step 3 is NaN\. Its samples: step2\/0\.png, .*step2\/15\.png and 4 more$/,
  );
  expect(trainer.state.step).toBe(2);
});

test("a loss spike is reported with the step and its samples, and training continues", async () => {
  const long = { ...schedule, initLr: 0, minLr: 0, totalSteps: 60 };
  const { messages, reports } = await run((i) => [i === 40 ? 50 : 2, 1 + 0.01 * (i % 5)], {
    settings: { schedule: long },
  });
  expect(reports).toHaveLength(60);
  expect(messages).toHaveLength(1);
  expect(messages[0]).toMatch(
    /^Step 41: the loss jumped to \d+\.\d+ from about \d+\.\d+; .*Its samples: step40\/0\.png, step40\/1\.png$/,
  );
});

test("a run stops after the last step, and after the current one on the signal", async () => {
  expect((await run(() => [1])).trainer.state.step).toBe(10);
  const stop = new AbortController();
  const stopped = await run(() => [1], {
    signal: stop.signal,
    events: {
      onStep: (_, { step }) => {
        if (step === 6) stop.abort();
      },
    },
  });
  expect([stopped.trainer.state.step, stopped.error]).toEqual([6, undefined]);
});

test("random numbers depend on the seed and the step only", async () => {
  const drawn = async (seed: number) => {
    const values: number[] = [];
    const { compose } = regressionStage();
    const stage = regressionStage((samples, random) => {
      values.push(random.uniform());
      return compose(samples, random);
    });
    await run(() => [1], { stage, settings: { seed } });
    return values;
  };
  const values = await drawn(7);
  expect(await drawn(7)).toEqual(values);
  expect(new Set([...values, ...(await drawn(8))]).size).toBe(20);
});

test("the EMA follows the weights with a decay that warms up", async () => {
  const decay = 0.4;
  const history: number[][] = [];
  const stage = regressionStage();
  const trainer = await Trainer.create({
    stage,
    source: initialWeights(),
    data: dataOf(() => [5, 1, 4]),
    settings: { ...settings, emaDecay: decay },
  });
  let ema: number[] = [...start.weight, ...start.bias];
  // Decays 1/10, 2/11, ... 6/15, then 0.4.
  for (let step = 1; step <= 10; step++) {
    await trainer.step();
    const current = Math.min(decay, step / (step + 9));
    const weights = numbers(trainer.state.parameters);
    ema = ema.map((value, i) => value * current + (weights[i] as number) * (1 - current));
    numbers(trainer.weights).forEach((value, i) => {
      expect(value, `step ${step}`).toBeCloseTo(ema[i] as number, 6);
    });
    history.push(weights);
  }
  expect(numbers(trainer.weights)).not.toEqual(history.at(-1));
  await trainer.close();
});

const validation = [
  sample("a.png", [1, 2], 3),
  sample("b.png", [-1, 0.5], 1),
  sample("c.png", [2, 2], -2),
  sample("d.png", [4, 4], undefined),
  sample("e.png", [0, 3], 0.5),
];
const validationExamples = examples(
  validation,
  validation.flatMap(({ image }) => ("features" in image ? [...image.features] : [])),
);

function lossOf(weights: NamedArrays): number {
  const [first = 0, second = 0, bias = 0] = numbers(weights);
  return byHand(validationExamples, { weight: [first, second], bias: [bias] }).loss;
}

test("the validation loss is the mean over the targets of all validation samples", async () => {
  for (const accumulate of [1, 2]) {
    for (const emaDecay of [0, 0.5]) {
      const weights: NamedArrays[] = [];
      const own = { accumulate, emaDecay, validateEvery: 3 };
      const trainer = await Trainer.create({
        stage: regressionStage(),
        source: initialWeights(),
        data: dataOf(() => [1, 2], { validation }),
        settings: { ...settings, ...own },
        events: {
          onValidation(step, loss) {
            weights.push(trainer.weights);
            expect(loss, `step ${step}`).toBeCloseTo(lossOf(trainer.weights), 4);
          },
        },
      });
      await trainer.run();
      await trainer.close();
      // At the start, every three steps, and at the end.
      expect(weights).toHaveLength(5);
    }
  }
});

test("a run returns the weights with the smallest validation loss, and the checkpoint knows them", async () => {
  const folder = await mkdtemp(join(root, "best"));
  // The targets of training lead towards those of validation at first, and away from them later.
  const targets = (step: number) => (step < 5 ? [-1, -1] : [60, 90]);
  const kept: { step: number; loss: number; isBest: boolean; values: number[] }[] = [];
  const output = await outputIn(folder);
  const long = { ...schedule, initLr: 0.2, minLr: 0.2, warmupSteps: 0, totalSteps: 12 };
  const trainer = await Trainer.create({
    stage: regressionStage(),
    source: initialWeights(),
    data: dataOf(targets, { validation }),
    settings: { ...settings, schedule: long, validateEvery: 2 },
    output,
    events: {
      onValidation: (step, loss, isBest) => kept.push({ step, loss, isBest, values: numbers(trainer.weights) }),
    },
  });
  const result = await trainer.run();
  await trainer.close();
  await output.metrics.close();
  const smallest = kept.toSorted((a, b) => a.loss - b.loss)[0];
  const largest = kept.toSorted((a, b) => b.loss - a.loss)[0];
  // Neither the first nor the last is the best one.
  expect(kept.slice(1, -1)).toContain(smallest);
  expect(numbers(result)).toEqual(smallest?.values);
  expect(numbers(result)).not.toEqual(largest?.values);
  expect(lossOf(result)).toBeCloseTo(smallest?.loss as number, 4);
  let least = Number.POSITIVE_INFINITY;
  for (const { loss, isBest } of kept) {
    expect(isBest).toBe(loss < least);
    least = Math.min(least, loss);
  }
  const saved = await output.checkpoints.latest();
  expect(saved).toMatchObject({ state: { step: 12 }, best: { step: smallest?.step, loss: smallest?.loss } });
  const metrics = await readMetrics(join(folder, "metrics.jsonl"));
  const written = metrics.flatMap((metric) => (metric.kind === "validation" ? [[metric.step, metric.loss]] : []));
  expect(written).toEqual(kept.map(({ step, loss }) => [step, loss]));
});

test("a run that is resumed takes the steps of the uninterrupted one", async () => {
  const targets = (step: number) => [step % 4, 2];
  const own = { emaDecay: 0.5, validateEvery: 2 };
  const whole = await run(targets, { settings: own, validation });
  const folder = await mkdtemp(join(root, "resumed"));
  const output = await outputIn(folder);
  const stop = new AbortController();
  const onStep = (_: string, { step }: StepReport) => {
    if (step === 7) stop.abort();
  };
  const first = await run(targets, { settings: own, validation, output, signal: stop.signal, events: { onStep } });
  const resumeFrom = await output.checkpoints.latest();
  expect(resumeFrom).toMatchObject({ state: { step: 7 }, position: { streams: [{ position: 6 }] } });
  const second = await run(targets, { settings: own, validation, output, resumeFrom });
  await output.metrics.close();
  expect([...first.reports, ...second.reports].map(({ loss }) => loss)).toEqual(whole.reports.map(({ loss }) => loss));
  expect([...first.losses, ...second.losses]).toEqual(whole.losses);
  expect(numbers(second.trainer.weights)).toEqual(numbers(whole.trainer.weights));
});
