import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Metric, MetricsLog, readMetrics } from "../../../src/training/metrics/metrics.ts";
import { readEvents } from "../../helpers/event-reader.ts";

let root: string;
let count = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "minigpt4-metrics-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const newFolder = () => join(root, `${count++}`);
const train = (step: number, loss = 3): Metric => ({
  step,
  time: 1000 + step,
  kind: "train",
  loss,
  learning_rate: 1e-4,
});
const steps = async (folder: string) => (await readMetrics(join(folder, "metrics.jsonl"))).map(({ step }) => step);

async function run(folder: string, metrics: readonly Metric[], options?: Parameters<typeof MetricsLog.open>[1]) {
  const log = await MetricsLog.open(folder, options);
  for (const metric of metrics) await log.write(metric);
  await log.close();
}

async function events(folder: string) {
  const names = (await readdir(join(folder, "tensorboard"))).sort();
  return Promise.all(names.map((name) => readEvents(join(folder, "tensorboard", name))));
}

test("a line stands in the file as soon as it is written", async () => {
  const folder = newFolder();
  const log = await MetricsLog.open(folder);
  await log.write(train(1));
  const seen = await readFile(join(folder, "metrics.jsonl"), "utf8");
  expect(seen).toBe('{"step":1,"time":1001,"kind":"train","loss":3,"learning_rate":0.0001}\n');
  await log.close();
});

test("TensorBoard's file holds the same, each number under its tag", async () => {
  const folder = newFolder();
  const full = { ...train(50, 2.5), grad_norm: 1.5, tokens_per_second: 320, data_share: 0.25 } as Metric;
  const samples = [{ image: "a.jpg", text: "two dogs" }];
  await run(folder, [
    full,
    { step: 50, time: 1051, kind: "validation", loss: 2.75 },
    { step: 50, time: 1052, kind: "samples", samples },
  ]);
  const [file = []] = await events(folder);
  const values = file
    .slice(2)
    .flatMap((event) => (event.values ?? []).map((value) => ({ step: event.step, ...value })));
  expect(values).toEqual([
    { step: 50, tag: "train/loss", scalar: 2.5 },
    { step: 50, tag: "train/learning_rate", scalar: Math.fround(1e-4) },
    { step: 50, tag: "train/grad_norm", scalar: 1.5 },
    { step: 50, tag: "train/tokens_per_second", scalar: 320 },
    { step: 50, tag: "train/data_share", scalar: 0.25 },
    { step: 50, tag: "validation/loss", scalar: 2.75 },
    {
      step: 50,
      tag: "samples",
      dtype: 7,
      plugin: "text",
      text: "| image | text |\n| --- | --- |\n| a\\.jpg | two dogs |",
    },
  ]);
});

test("a run that goes on writes each step once, and says so to TensorBoard", async () => {
  const folder = newFolder();
  const validation: Metric = { step: 2, time: 1, kind: "validation", loss: 4 };
  await run(folder, [train(1), train(2), validation, train(3), train(4)]);
  await run(folder, [train(3, 9), train(4, 9), train(5, 9)], { resumeAt: 2 });
  expect(await readMetrics(join(folder, "metrics.jsonl"))).toEqual([
    train(1),
    train(2),
    validation,
    train(3, 9),
    train(4, 9),
    train(5, 9),
  ]);
  const [, second] = await events(folder);
  expect(second?.[1]).toMatchObject({ step: 3, sessionStatus: 1 });
  expect(await readdir(folder)).toEqual(["metrics.jsonl", "tensorboard"]);
});

test("what a killed process left half written is dropped, in both files", async () => {
  const folder = newFolder();
  await run(folder, [train(1), train(2)]);
  const path = join(folder, "metrics.jsonl");
  await truncate(path, (await readFile(path)).length - 9);
  expect(await steps(folder)).toEqual([1]);
  const [name = ""] = await readdir(join(folder, "tensorboard"));
  const eventPath = join(folder, "tensorboard", name);
  await truncate(eventPath, (await readFile(eventPath)).length - 9);
  await run(folder, [train(2, 9)], { resumeAt: 1 });
  expect(await readMetrics(path)).toEqual([train(1), train(2, 9)]);
});

test("a last line that only lacks its end is kept", async () => {
  const folder = newFolder();
  await run(folder, [train(1), train(2)]);
  const path = join(folder, "metrics.jsonl");
  await truncate(path, (await readFile(path)).length - 1);
  await run(folder, [train(3)], { resumeAt: 2 });
  expect(await steps(folder)).toEqual([1, 2, 3]);
});

test("a new run replaces an old one; a run that goes on may find nothing", async () => {
  const folder = newFolder();
  await run(folder, [train(1)], { resumeAt: 7 });
  await run(folder, [train(4)]);
  expect(await steps(folder)).toEqual([4]);
  expect((await events(folder))[1]?.[1]).toMatchObject({ step: 0, sessionStatus: 1 });
});

test("a stage has files of its own", async () => {
  const folder = newFolder();
  await run(folder, [train(1)], { stage: "contrastive" });
  await run(folder, [train(2)]);
  expect(await steps(folder)).toEqual([2]);
  expect(await readMetrics(join(folder, "metrics.contrastive.jsonl"))).toEqual([train(1)]);
  expect(await readdir(join(folder, "tensorboard", "contrastive"))).toHaveLength(1);
});

test.each([
  ["no JSON", "oops", "invalid JSON"],
  ["a kind that is not known", '{"step":1,"time":1,"kind":"test","loss":1}', "kind"],
  ["a loss that is text", '{"step":1,"time":1,"kind":"validation","loss":"1"}', "loss"],
  ["half a step", '{"step":1.5,"time":1,"kind":"validation","loss":1}', "step"],
])("%s is an error with file and line, and the file stays", async (_, line, problem) => {
  const folder = newFolder();
  await mkdir(folder);
  const path = join(folder, "metrics.jsonl");
  const text = `${JSON.stringify(train(1))}\n${line}\n${JSON.stringify(train(2))}\n`;
  await writeFile(path, text);
  await expect(readMetrics(path)).rejects.toThrow(`${path}:2: not a metric: ${problem}`);
  await expect(MetricsLog.open(folder, { resumeAt: 1 })).rejects.toThrow(`${path}:2:`);
  expect(await readFile(path, "utf8")).toBe(text);
  await writeFile(path, `${JSON.stringify(train(1))}\n`);
  await appendFile(path, `${line}\n`);
  await expect(readMetrics(path)).rejects.toThrow(`${path}:2:`);
});

test("property: what is written is read, up to any cut; no number is lost but its kind of infinity", async () => {
  const place = { step: fc.maxSafeNat(), time: fc.double({ noNaN: true, noDefaultInfinity: true }) };
  const number = fc.double({ noDefaultInfinity: true }).map((value) => (value === 0 ? 0 : value));
  const text = fc.string({ unit: "binary" });
  const metric = fc.oneof(
    fc.record(
      { ...place, kind: fc.constant("train" as const), loss: number, learning_rate: number, grad_norm: number },
      { requiredKeys: ["step", "time", "kind", "loss", "learning_rate"] },
    ),
    fc.record({ ...place, kind: fc.constant("validation" as const), loss: number }),
    fc.record({
      ...place,
      kind: fc.constant("samples" as const),
      samples: fc.array(fc.record({ image: text, text })),
    }),
  );
  const folder = newFolder();
  await fc.assert(
    fc.asyncProperty(fc.array(metric, { minLength: 1, maxLength: 5 }), fc.nat(), async (metrics, cut) => {
      await rm(folder, { recursive: true, force: true });
      await run(folder, metrics);
      const path = join(folder, "metrics.jsonl");
      const all = JSON.parse(JSON.stringify(metrics), (_, value) => value ?? Number.NaN);
      expect(await readMetrics(path)).toEqual(all);
      const bytes = await readFile(path);
      const end = cut % bytes.length;
      await truncate(path, end);
      // An object without the end of its line is whole.
      const whole =
        bytes
          .subarray(0, end + 1)
          .toString("utf8")
          .split("\n").length - 1;
      expect(await readMetrics(path)).toEqual(all.slice(0, whole));
    }),
    { numRuns: 60 },
  );
});
