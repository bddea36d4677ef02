import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { dryRun } from "../../src/training/dry-run.ts";
import { encodeRecipe } from "../../src/training/encode.ts";
import { readMetrics } from "../../src/training/metrics/metrics.ts";
import { readRecipe } from "../../src/training/recipe.ts";
import type { RunOptions } from "../../src/training/run.ts";
import { runRecipe } from "../../src/training/run.ts";
import { goldenEncoder } from "../helpers/golden-dimensions.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { writeRecipe, writeWalls } from "../helpers/walls.ts";

let folder: string;
let path: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-run-"));
  await writeWalls(join(folder, "data"));
  path = await writeRecipe(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const recipeWith = async (settings: readonly string[]) => (await readRecipe(path, settings)).recipe;
const into = (name: string) => `run.output_dir=${JSON.stringify(join(folder, name))}`;

/** Losses of the steps by stage, and validation losses. */
async function run(settings: readonly string[], options: RunOptions & { stopAfter?: number; stopIn?: string } = {}) {
  const stop = new AbortController();
  const losses: Record<string, number[]> = { contrastive: [], captions: [] };
  const validation: number[] = [];
  const { stopAfter, stopIn = "captions", ...rest } = options;
  const out = await runRecipe(await recipeWith(settings), {
    ...rest,
    signal: stop.signal,
    onStep(stage, { step, loss }) {
      losses[stage]?.push(loss);
      if (stage === stopIn && step === stopAfter) stop.abort();
    },
    onValidation: (_, loss) => validation.push(loss),
  }).catch((error: Error) => {
    if (error.name !== "AbortError") throw error;
    return "";
  });
  return { out, losses, validation };
}

test("a recipe is trained to a model folder; a run that is stopped anywhere resumes as if it had not been", async () => {
  const whole = await run([]);
  expect(whole.losses.contrastive).toHaveLength(3);
  expect(whole.losses.captions).toHaveLength(12);
  const captions = whole.losses.captions as number[];
  expect(captions.at(-1)).toBeLessThan(captions[0] as number);
  expect(whole.validation).toHaveLength(4);
  const model = await openModelFolder(whole.out);
  expect(model.config.qformer?.numQueryTokens).toBe(2);
  await model.close();

  const other = [into("stopped")];
  const first = await run(other, { stopAfter: 2, stopIn: "contrastive" });
  expect(first.losses).toEqual({ contrastive: whole.losses.contrastive?.slice(0, 2), captions: [] });
  await expect(run(other)).rejects.toThrow(/already contains a run.*--resume.*--overwrite/);
  const second = await run(other, { resume: true, stopAfter: 5 });
  expect(second.losses).toEqual({ contrastive: whole.losses.contrastive?.slice(2), captions: captions.slice(0, 5) });
  const third = await run(other, { resume: true });
  expect(third.losses).toEqual({ contrastive: [], captions: captions.slice(5) });
  for (const name of ["projection.safetensors", "qformer.safetensors"]) {
    expect(await readFile(join(third.out, name))).toEqual(await readFile(join(whole.out, name)));
  }
});

test("the folder of a ViT without a Q-Former has its new norm", async () => {
  const { out } = await run([
    into("joined-patches"),
    `model.encoder=${JSON.stringify(goldenEncoder)}`,
    `model.encoder_ckpt=${JSON.stringify(join(goldenRoot, "mha", "eva_vit.pth"))}`,
    "model.qformer=null",
    "model.trained=[projection]",
    "run.contrastive=null",
    "run.iters_per_epoch=1",
    "run.describe=0",
  ]);
  const model = await openModelFolder(out);
  const { qformer, encoder: frozen } = model.imageSources;
  expect(frozen.tensors.has("ln_vision.weight")).toBe(false);
  expect([...(await qformer.readFloat32("ln_vision.weight"))]).toEqual(Array(64).fill(1));
  expect([...qformer.tensors.keys()].sort()).toEqual(["ln_vision.bias", "ln_vision.weight"]);
  await model.close();
});

test("metrics have each step once, with validation losses and descriptions", async () => {
  const metrics = await readMetrics(join(folder, "stopped", "metrics.jsonl"));
  const train = metrics.filter(({ kind }) => kind === "train");
  expect(train.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  const validation = metrics.filter(({ kind }) => kind === "validation");
  expect(validation.map(({ step }) => step)).toEqual([0, 4, 8, 12]);
  const samples = metrics.flatMap((metric) => (metric.kind === "samples" ? [metric.samples] : []));
  expect(samples).toHaveLength(4);
  expect(samples.at(-1)).toHaveLength(1);
  expect(samples.at(-1)?.[0]?.image).toMatch(/white\.png$/);
});

test("a damaged checkpoint is skipped for the one before", async () => {
  const checkpoints = join(folder, "stopped", "checkpoints");
  const names = (await readdir(checkpoints)).sort();
  expect(names).toEqual(["captions-0000010.safetensors", "captions-0000012.safetensors"]);
  const last = join(checkpoints, "captions-0000012.safetensors");
  await writeFile(last, (await readFile(last)).subarray(0, 1000));
  const messages: string[] = [];
  const again = await run([into("stopped")], { resume: true, onMessage: (message) => messages.push(message) });
  expect(messages.join()).toMatch(/Skipped.*captions-0000012/);
  expect(again.losses.captions).toHaveLength(2);
});

test("a run without a checkpoint cannot be resumed; a finished one takes no more steps", async () => {
  await expect(run([into("none")], { resume: true })).rejects.toThrow(/No checkpoint.*without --resume/);
  const ended = await run([into("stopped")], { resume: true });
  expect(ended.losses).toEqual({ contrastive: [], captions: [] });
});

test("a schedule that changed between two parts of a run is reported", async () => {
  await run([into("jump")], { stopAfter: 4 });
  const messages: string[] = [];
  await run([into("jump"), "run.init_lr=5e-2"], { resume: true, onMessage: (message) => messages.push(message) });
  expect(messages.join()).toMatch(/learning rate jumps from .* to .*e-2/);
});

test("class names need one image per class, from a dataset of the recipe", async () => {
  const classes = (name: string) => run([into("classes"), `run.contrastive.class_names=${name}`]);
  await expect(classes("walls")).rejects.toThrow(/class_names: dataset walls has 4 training images.*1000 classes/s);
  await expect(classes("doors")).rejects.toThrow(/doors.*walls/s);
});

test("features are computed once for all runs, and training from the cache gives the same losses", async () => {
  const cache = [`run.feature_cache=${JSON.stringify(join(folder, "kept"))}`];
  const encoded = await encodeRecipe(await recipeWith(cache));
  // Four training images in two views, and two validation images.
  expect(encoded).toEqual({ total: 10, computed: 10, broken: 0 });
  expect((await encodeRecipe(await recipeWith(cache))).computed).toBe(0);
  const kept = await run([into("kept-run"), ...cache]);
  const whole = await run([into("whole")]);
  expect(kept.losses).toEqual(whole.losses);
  const without = await run([into("without"), "run.feature_cache=false"]);
  without.losses.captions?.forEach((loss, i) => {
    expect(loss).toBeCloseTo(whole.losses.captions?.[i] as number, 2);
  });
  await expect(encodeRecipe(await recipeWith(["run.feature_cache=false"]))).rejects.toThrow(/feature_cache/);
});

test("broken images are left out and logged; too many fail the run", async () => {
  const images = join(folder, "data", "Images");
  const green = await readFile(join(images, "green.png"));
  await writeFile(join(images, "green.png"), green.subarray(0, 40));
  try {
    const some = await run([into("broken")]);
    expect(some.losses.captions).toHaveLength(12);
    const noted = (await readFile(join(folder, "broken", "broken.jsonl"), "utf8")).trim().split("\n");
    expect(noted.map((line) => JSON.parse(line).name)).toEqual([join(images, "green.png")]);
    await mkdir(join(folder, "bad", "Images"), { recursive: true });
    const rows = ["image,caption"];
    for (let i = 0; i < 60; i++) {
      await copyFile(join(images, i % 2 ? "green.png" : "red.png"), join(folder, "bad", "Images", `${i}.png`));
      rows.push(`${i}.png,a wall`);
    }
    await writeFile(join(folder, "bad", "captions.txt"), rows.join("\n"));
    const bad = run([into("too-many"), `datasets.walls.path=${join(folder, "bad")}`, "run.batch_size=16"]);
    await expect(bad).rejects.toThrow(/samples are invalid.*\.png: is not an image/s);
  } finally {
    await writeFile(join(images, "green.png"), green);
  }
});

test("a loss that is not finite fails the run with the samples' names and keeps the state before it", async () => {
  const settings = [into("nan"), "run.init_lr=1e30", "run.warmup_steps=0", "run.save_every=1000"];
  await expect(run(settings)).rejects.toThrow(/The (loss|gradient norm) of step \d+ is .*Its samples: .*\.png/s);
  const [name = ""] = (await readdir(join(folder, "nan", "checkpoints"))).sort().slice(-1);
  expect(name).toMatch(/^captions-000000[1-9]/);
});

test("a dry run reports parts, data and time, and leaves no files behind", async () => {
  const plan = await dryRun(await recipeWith([into("dry"), "run.feature_cache=false"]));
  expect(plan.parts.filter(({ trained }) => trained).map(({ name }) => name)).toEqual([
    "queries",
    "qformer",
    "projection",
  ]);
  expect(plan.datasets).toMatchObject([{ name: "walls", format: "flickr8k", images: 4, texts: 8, broken: 0 }]);
  expect(plan).toMatchObject({ validation: 2, steps: 12, imagesPerStep: 4, cacheBytes: undefined });
  expect(plan.secondsPerStep).toBeGreaterThan(0);
  expect(plan.datasets[0]?.tokensPerText).toBeGreaterThan(3);
  await expect(readdir(join(folder, "dry"))).rejects.toThrow(/ENOENT/);
});

test("the recipe chooses what is trained; frozen parts need a weight file", async () => {
  await expect(run([into("frozen"), "model.trained=[projection]"])).rejects.toThrow(/Q-?[Ff]ormer|queries/);
  const trained = [`model.ckpt=${JSON.stringify(join(folder, "whole"))}`];
  const projection = await run([into("projection"), ...trained, "model.trained=[projection]", "run.contrastive=null"]);
  const queries = await run([
    into("queries"),
    ...trained,
    "model.trained=[projection, queries]",
    "run.contrastive=null",
  ]);
  const before = await readFile(join(folder, "whole", "qformer.safetensors"));
  expect(await readFile(join(projection.out, "qformer.safetensors"))).toEqual(before);
  expect(await readFile(join(queries.out, "qformer.safetensors"))).not.toEqual(before);
});

test("layer offload gives the losses of a language model in memory, and leaves no layers behind", async () => {
  const settings = ["run.contrastive=null", "run.iters_per_epoch=4", "run.accum_grad_iters=2", "run.batch_size=2"];
  for (const quantization of ["float32", "int8"]) {
    const own = [...settings, `model.llm_quantization=${quantization}`];
    const whole = await run([...own, into(`whole-${quantization}`)]);
    const offloaded = await run([...own, into(`offloaded-${quantization}`), "run.gradient_checkpointing=true"]);
    expect(offloaded.losses.captions).toHaveLength(4);
    // In 8 bits, a rounding error may become a whole quantization step.
    const digits = quantization === "int8" ? 2 : 5;
    for (const [i, loss] of (whole.losses.captions ?? []).entries()) {
      expect(offloaded.losses.captions?.[i], `${quantization}, step ${i + 1}`).toBeCloseTo(loss, digits);
    }
    expect(offloaded.validation).toHaveLength(whole.validation.length);
    for (const [i, loss] of whole.validation.entries()) {
      expect(offloaded.validation[i], `${quantization}, validation ${i}`).toBeCloseTo(
        loss,
        quantization === "int8" ? 1 : 4,
      );
    }
    expect(await readdir(offloaded.out)).not.toContain("layers");
  }
});
