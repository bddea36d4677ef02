import { copyFile, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listPairs } from "../../src/data/dataset.ts";
import { openDataset } from "../../src/data/formats/open.ts";
import { evaluateRetrieval } from "../../src/evaluation/retrieval.ts";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { MiniGPT4RetrievalModel } from "../../src/retrieval/open-retrieval-model.ts";
import { dryRun } from "../../src/training/dry-run.ts";
import { readRecipe } from "../../src/training/recipe.ts";
import type { RunOptions } from "../../src/training/run.ts";
import { runRecipe } from "../../src/training/run.ts";
import { minigpt4 } from "../helpers/cli-command.ts";
import { writeRecipe, writeWalls } from "../helpers/walls.ts";

let folder: string;
let path: string;
/** A model without a head. */
let model: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-head-"));
  await writeWalls(join(folder, "data"));
  path = await writeRecipe(folder);
  model = await runRecipe((await readRecipe(path, into("model"))).recipe);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const into = (name: string) => [`run.output_dir=${JSON.stringify(join(folder, name))}`];

/** Settings of a run that trains the head of `model`. */
function headOf(name: string): string[] {
  return [
    ...into(name),
    `model.ckpt=${JSON.stringify(model)}`,
    "model.trained=[contrastive_head]",
    "run.contrastive=null",
    "run.iters_per_epoch=40",
    "run.init_lr=0.01",
    "run.validate_every=4",
    "run.feature_dropout=0",
  ];
}

async function run(settings: readonly string[], options: RunOptions = {}) {
  const losses: number[] = [];
  const onStep = (stage: string, { loss }: { loss: number }) => {
    expect(stage).toBe("contrastive");
    losses.push(loss);
  };
  const out = await runRecipe((await readRecipe(path, settings)).recipe, { ...options, onStep });
  return { out, losses };
}

test("the head is trained alone; the rest of the model does not change", async () => {
  const { out, losses } = await run(headOf("head"));
  expect(losses).toHaveLength(40);
  expect(losses.at(-1)).toBeLessThan(losses[0] as number);
  for (const file of ["encoder.safetensors", "qformer.safetensors", "projection.safetensors"]) {
    expect((await readFile(join(out, file))).equals(await readFile(join(model, file)))).toBe(true);
  }
  const before = JSON.parse(await readFile(join(model, "config.json"), "utf8"));
  const after = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
  expect(after).toEqual({ ...before, weights: { ...before.weights, contrastive: "contrastive.safetensors" } });

  const opened = await openModelFolder(out);
  const { vocabSize, hiddenSize } = opened.config.llm;
  const tensors = [...(opened.contrastive?.tensors.values() ?? [])];
  expect(Object.fromEntries(tensors.map(({ name, storedType, shape }) => [name, [storedType, ...shape]]))).toEqual({
    "word_weight.weight": ["F16", vocabSize, 1],
    word_mean: ["F16", hiddenSize],
    picture_shift: ["F16", hiddenSize],
  });
  const pairs = await listPairs(await openDataset(join(folder, "data")));
  const shift = await opened.contrastive?.readFloat32("picture_shift");
  expect(shift?.every((value) => value !== 0)).toBe(true);
  // It closes the folder.
  const finder = new MiniGPT4RetrievalModel(opened);
  expect(await evaluateRetrieval(finder, pairs)).toMatchObject({ images: 6, captions: 12 });
  await finder.close();
});

test("a run that is stopped resumes to the same head", async () => {
  const settings = headOf("stopped");
  const stop = new AbortController();
  const { recipe } = await readRecipe(path, settings);
  const onStep = (_: string, { step }: { step: number }) => step === 7 && stop.abort();
  await expect(runRecipe(recipe, { signal: stop.signal, onStep })).rejects.toThrow();
  const { out, losses } = await run(settings, { resume: true });
  expect(losses).toHaveLength(33);
  const file = "contrastive.safetensors";
  expect(await readFile(join(out, file))).toEqual(await readFile(join(folder, "head", file)));
});

test("a dry run measures the steps of the head, and leaves no files behind", async () => {
  const { recipe } = await readRecipe(path, headOf("dry"));
  const plan = await dryRun(recipe);
  expect(plan).toMatchObject({ steps: 40, imagesPerStep: 4, secondsPerStep: expect.any(Number) });
  expect(plan.parts.filter(({ trained }) => trained)).toEqual([{ name: "contrastive", trained: true, origin: "new" }]);
  await expect(stat(join(folder, "dry"))).rejects.toThrow(/ENOENT/);
});

test("the head is not trained with other parts, nor without a trained model", async () => {
  for (const [setting, message] of [
    [
      "model.trained=[projection, contrastive_head]",
      /recipe\.yaml:\d+: model\.trained: contrastive_head is trained alone/,
    ],
    ["run.contrastive={steps: 3, batch_size: 4, init_lr: 0.1}", /recipe\.yaml(:\d+)?: run\.contrastive: .*Remove it/],
  ] as const) {
    await expect(readRecipe(path, [...headOf("wrong"), setting])).rejects.toThrow(message);
  }
  await expect(run([...headOf("wrong"), "model.ckpt=null"])).rejects.toThrow(/model\.ckpt|model\.qformer_ckpt/);
  const qformer = join(folder, "only-qformer");
  await rm(qformer, { recursive: true, force: true });
  await copyFile(join(model, "qformer.safetensors"), `${qformer}.safetensors`);
  const only = [`model.ckpt=${JSON.stringify(`${qformer}.safetensors`)}`];
  await expect(run([...headOf("wrong"), ...only])).rejects.toThrow(/set model\.ckpt/);
  expect((await readdir(folder)).includes("wrong")).toBe(true);
});

test("evaluate retrieval prints both directions, and fails where a model has no head", async () => {
  const data = join(folder, "data");
  const found = await minigpt4(["evaluate", "retrieval", data, "--model", join(folder, "head"), "--captions", "1"]);
  expect(found.code).toBe(0);
  expect(found.stdout).toMatch(/^images, captions +6, 6$/m);
  expect(found.stdout).toMatch(/^image of a caption( +\d+\.\d%){2} +100\.0% +\d(\.5)? of 6$/m);
  expect(found.stdout).toMatch(/^caption of an image( +\d+\.\d%){2} +100\.0% +\d(\.5)? of 6$/m);
  const none = await minigpt4(["evaluate", "retrieval", data, "--model", model]);
  expect(none).toMatchObject({ code: 1, stdout: "" });
  expect(none.stderr).toMatch(/^error: .*model has no contrastive head \(weights\.contrastive of its config\.json\)$/m);
});
