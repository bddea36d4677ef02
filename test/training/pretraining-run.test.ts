import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { dryRun } from "../../src/training/dry-run.ts";
import { readMetrics } from "../../src/training/metrics/metrics.ts";
import { readRecipe } from "../../src/training/recipe.ts";
import { type RunOptions, runRecipe } from "../../src/training/run.ts";
import { writeRecipe, writeWalls } from "../helpers/walls.ts";

let folder: string;
let path: string;
const words = "[PAD] [UNK] [CLS] [SEP] a wall nothing but red green blue white black yellow";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-pretraining-"));
  await writeWalls(join(folder, "data"));
  await writeFile(join(folder, "vocab.txt"), words.split(" ").join("\n"));
  path = join(folder, "qformer.yaml");
  const captions = await readFile(await writeRecipe(folder), "utf8");
  const common = captions
    .replace(/^ {2}(trained|llm|max_txt_len|contrastive|answers_per_image|describe):.*\n/gm, "")
    .replace("arch: minigpt4", `arch: blip2_qformer\n  tokenizer: ${JSON.stringify(join(folder, "vocab.txt"))}`)
    .replace("run:\n", "  \nrun:\n");
  await writeFile(path, common);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const into = (name: string) => `run.output_dir=${JSON.stringify(join(folder, name))}`;

async function run(settings: readonly string[], { stopAfter, ...options }: RunOptions & { stopAfter?: number } = {}) {
  const stop = new AbortController();
  const losses: number[] = [];
  const validation: number[] = [];
  const { recipe } = await readRecipe(path, settings);
  const out = await runRecipe(recipe, {
    ...options,
    signal: stop.signal,
    onStep(_, { step, loss }) {
      losses.push(loss);
      if (step === stopAfter) stop.abort();
    },
    onValidation: (_, loss) => validation.push(loss),
  }).catch((error: Error) => {
    if (error.name !== "AbortError") throw error;
    return "";
  });
  return { out, losses, validation };
}

test("a Q-Former is pre-trained; a run that is stopped resumes as if it had not been", async () => {
  const whole = await run([into("whole")]);
  expect(whole.losses).toHaveLength(12);
  expect(whole.losses.slice(-3).reduce((a, b) => a + b)).toBeLessThan(whole.losses.slice(0, 3).reduce((a, b) => a + b));
  expect(whole.validation).toHaveLength(4);
  const first = await run([into("stopped")], { stopAfter: 5 });
  const second = await run([into("stopped")], { resume: true });
  expect([...first.losses, ...second.losses]).toEqual(whole.losses);
  for (const name of ["qformer.safetensors", "config.json", "vocab.txt"]) {
    expect(await readFile(join(folder, "stopped", name))).toEqual(await readFile(join(folder, "whole", name)));
  }
  const metrics = await readMetrics(join(folder, "whole", "metrics.jsonl"));
  const terms = metrics.flatMap((metric) => (metric.kind === "train" ? [Object.keys(metric.terms ?? {})] : []));
  expect(terms).toEqual(Array(12).fill(["itc", "itm", "itg"]));
});

test("micro-batches add up to a larger step", async () => {
  const { losses } = await run([into("added"), "run.batch_size=2", "run.accum_grad_iters=2"]);
  expect(losses).toHaveLength(12);
  expect(losses.every(Number.isFinite)).toBe(true);
});

test("a language model is connected to the pre-trained Q-Former, without its text side", async () => {
  const { recipe } = await readRecipe(join(folder, "recipe.yaml"), [
    into("joined"),
    `model.qformer_ckpt=${JSON.stringify(join(folder, "whole"))}`,
    "model.trained=[projection]",
    "run.contrastive=null",
    "run.iters_per_epoch=2",
    "run.describe=0",
  ]);
  const model = await openModelFolder(await runRecipe(recipe));
  const generative = await readRecipe(join(folder, "recipe.yaml"), [
    into("generative"),
    `model.qformer_ckpt=${JSON.stringify(join(folder, "whole"))}`,
    "run.contrastive=null",
    "run.iters_per_epoch=1",
    "run.describe=0",
  ]);
  await runRecipe(generative.recipe);
  const trained = await openCheckpoint(join(folder, "generative", "qformer.safetensors"));
  const names = [...trained.tensors.keys()];
  expect(names).toContain("Qformer.bert.encoder.layer.0.intermediate_query.dense.weight");
  expect(names.filter((name) => /cls|word_embeddings|layer\.0\.intermediate\.|_proj|itm/.test(name))).toEqual([]);
  const before = await openCheckpoint(join(folder, "whole", "qformer.safetensors"));
  const value = async (file: typeof before) => [...(await file.readFloat32("query_tokens"))];
  expect(await value(trained)).not.toEqual(await value(before));
  const [a, b] = [await value(trained), await value(before)];
  // One small step away from where it began.
  expect(Math.max(...a.map((one, i) => Math.abs(one - (b[i] as number))))).toBeLessThan(5e-3);
  await Promise.all([model.close(), trained.close(), before.close()]);
});

test("a dry run lists the parts and data", async () => {
  const { recipe } = await readRecipe(path, [into("dry")]);
  const plan = await dryRun(recipe);
  expect(plan.parts.map(({ name, trained }) => [name, trained])).toEqual([
    ["encoder", false],
    ["ln_vision", true],
    ["queries", true],
    ["qformer", true],
    ["text side", true],
  ]);
  expect(plan.datasets[0]?.texts).toBe(8);
  expect(plan.trainedParameters).toBeGreaterThan(1000);
});

test.each([
  [["model.tokenizer=null"], /model\.tokenizer: .*vocab\.txt/],
  [["model.max_txt_len=600"], /max_txt_len: .*max_position_embeddings/],
  [["run.describe=2"], /describe/],
  [["model.llm=smollm2"], /llm/],
])("%j is an error", async (settings, message) => {
  await expect(readRecipe(path, settings)).rejects.toThrow(message);
});
