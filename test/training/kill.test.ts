import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Metric, readMetrics } from "../../src/training/metrics/metrics.ts";
import { outcome, start } from "../helpers/cli-command.ts";
import { readEvents } from "../helpers/event-reader.ts";
import { writeRecipe, writeWalls } from "../helpers/walls.ts";

const saveEvery = 3;
const stages = { contrastive: 10, captions: 30 } as const;
type StageName = keyof typeof stages;

let folder: string;
let recipe: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-kill-"));
  await writeWalls(join(folder, "data"));
  // One of the images is broken.
  await writeFile(join(folder, "data", "Images", "grey.png"), "no image");
  await appendFile(join(folder, "data", "captions.txt"), "grey.png,A grey wall .\n");
  recipe = await writeRecipe(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

const out = (name: string) => join(folder, name);

/** Each run has a cache of its own, so that it is also killed while features are computed. */
function commandOf(name: string): string[] {
  const settings = {
    output_dir: out(name),
    feature_cache: out(`${name}-cache`),
    save_every: saveEvery,
    iters_per_epoch: stages.captions,
    "contrastive.steps": stages.contrastive,
    validate_every: 7,
  };
  const set = Object.entries(settings).flatMap(([key, value]) => ["--set", `run.${key}=${JSON.stringify(value)}`]);
  return ["train", recipe, ...set];
}

const metricsPath = (name: string, stage: StageName) =>
  join(out(name), stage === "captions" ? "metrics.jsonl" : `metrics.${stage}.jsonl`);

async function metricsOf(name: string, stage: StageName): Promise<readonly Metric[]> {
  const path = metricsPath(name, stage);
  return existsSync(path) ? readMetrics(path) : [];
}

/** Everything that was measured but what the clock says. */
async function measured(name: string, stage: StageName): Promise<unknown[]> {
  return (await metricsOf(name, stage)).map((metric) => ({
    ...metric,
    time: undefined,
    tokens_per_second: undefined,
    data_share: undefined,
  }));
}

const lastStep = async (name: string, stage: StageName) => (await metricsOf(name, stage)).at(-1)?.step ?? 0;

/** Paths of all files of a run. */
function filesOf(name: string, ending = ""): string[] {
  if (!existsSync(out(name))) return [];
  const paths = readdirSync(out(name), { recursive: true, encoding: "utf8" });
  return paths.filter((path) => path.endsWith(ending)).sort();
}

/** Those that can be gone on from. */
const checkpoints = (name: string) => filesOf(name, ".safetensors").filter((path) => path.startsWith("checkpoints"));

/** Whatever bears the name of a weight file must be a whole one. */
async function expectWholeFiles(name: string): Promise<void> {
  for (const path of filesOf(name, ".safetensors")) await (await openSafetensors(join(out(name), path))).close();
  for (const path of filesOf(name, ".json")) JSON.parse(readFileSync(join(out(name), path), "utf8"));
}

/** Event files of a stage, by the step at which their process began. */
async function beginnings(name: string, stage: StageName): Promise<Map<string, number>> {
  const path = join(out(name), "tensorboard", stage === "captions" ? "" : stage);
  const files = existsSync(path) ? readdirSync(path).filter((file) => file.startsWith("events.")) : [];
  const found = new Map<string, number>();
  for (const file of files) {
    const [, begun] = await readEvents(join(path, file));
    if (begun) found.set(file, begun.step);
  }
  return found;
}

/** Waits for a moment at which the process is killed; it may end before. */
type Moment = (name: string, random: Random, ended: AbortSignal) => Promise<void>;

const whileStarting: Moment = (_, random) => pause(300 + 1200 * random.uniform());

/** Some steps after the last one that an earlier process reached. */
function amid(stage: StageName): Moment {
  return async (name, random, ended) => {
    const target = (await lastStep(name, stage)) + 1 + random.below(5);
    while (!ended.aborted && (await lastStep(name, stage)) < target) await pause(2);
    await pause(30 * random.uniform());
  };
}

const whileSaving: Moment = async (name, _, ended) => {
  const path = join(out(name), "checkpoints");
  while (!ended.aborted && !(existsSync(path) && readdirSync(path).some((file) => file.endsWith(".partial")))) {
    await pause(0);
  }
};

/** Starts the run, or goes on with it. */
function begin(name: string): ChildProcess {
  return start([...commandOf(name), ...(checkpoints(name).length > 0 ? ["--resume"] : [])]);
}

/** Whether the process was killed; it may have been faster. */
async function killedAt(moment: Moment, name: string, random: Random): Promise<boolean> {
  const child = begin(name);
  const ended = new AbortController();
  const killing = moment(name, random, ended.signal).then(() => child.kill("SIGKILL"));
  const { code, stderr } = await outcome(child);
  ended.abort();
  await killing;
  if (code !== null) expect(code, stderr).toBe(0);
  return code === null;
}

test("a run that is killed again and again ends with the same numbers and the same files", async () => {
  const whole = outcome(begin("whole"));
  const random = new Random(6);
  const moments = [
    whileStarting,
    amid("contrastive"),
    amid("captions"),
    whileSaving,
    amid("captions"),
    amid("captions"),
  ];
  let kills = 0;
  for (const moment of moments) {
    const reached = {
      contrastive: await lastStep("killed", "contrastive"),
      captions: await lastStep("killed", "captions"),
    };
    const before = {
      contrastive: await beginnings("killed", "contrastive"),
      captions: await beginnings("killed", "captions"),
    };
    if (await killedAt(moment, "killed", random)) kills++;
    await expectWholeFiles("killed");
    // A process leaves no more than what it was writing, and the next one removes it.
    expect(filesOf("killed", ".partial").length).toBeLessThanOrEqual(2);
    for (const stage of ["contrastive", "captions"] as const) {
      for (const [file, step] of await beginnings("killed", stage)) {
        if (before[stage].has(file)) continue;
        const lost = reached[stage] - Math.max(0, step - 1);
        expect(lost).toBeGreaterThanOrEqual(0);
        expect(lost).toBeLessThanOrEqual(saveEvery);
      }
    }
  }
  expect(kills).toBeGreaterThanOrEqual(4);
  expect(await outcome(begin("killed"))).toMatchObject({ code: 0 });
  expect(await whole).toMatchObject({ code: 0 });
  for (const [stage, steps] of Object.entries(stages) as [StageName, number][]) {
    const metrics = await measured("killed", stage);
    expect(metrics).toEqual(await measured("whole", stage));
    const trained = (await metricsOf("killed", stage)).filter(({ kind }) => kind === "train");
    expect(trained.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  }
  const noted = (await readFile(join(out("killed"), "broken.jsonl"), "utf8")).trimEnd().split("\n");
  expect(noted.map((line) => JSON.parse(line).name)).toEqual([join(folder, "data", "Images", "grey.png")]);
  for (const file of ["projection", "qformer", "best"].map((part) => `${part}.safetensors`)) {
    expect(await readFile(join(out("killed"), file)), file).toEqual(await readFile(join(out("whole"), file)));
  }
  expect(filesOf("killed", ".partial")).toEqual([]);
  expect(checkpoints("killed")).toEqual(checkpoints("whole"));
}, 120_000);

test.each(["contrastive", "captions"] as const)(
  "Ctrl-C in the stage of %s saves the state and prints how to resume",
  async (stage) => {
    const name = `interrupted-${stage}`;
    const child = begin(name);
    const ended = new AbortController();
    const interrupting = amid(stage)(name, new Random(1), ended.signal).then(() => child.kill("SIGINT"));
    const { code, stdout, stderr } = await outcome(child);
    ended.abort();
    await interrupting;
    expect({ code, stdout }).toEqual({ code: 130, stdout: "" });
    expect(stderr).toContain(`Stopped. The state is saved in ${out(name)}; continue with --resume.`);
    const step = await lastStep(name, stage);
    expect(step).toBeLessThan(stages[stage]);
    expect(checkpoints(name).at(-1)).toContain(`${stage}-${String(step).padStart(7, "0")}.`);
    expect(filesOf(name, ".partial")).toEqual([]);
  },
);
