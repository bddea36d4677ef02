import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { readRecipe } from "../../src/training/recipe.ts";
import { type RunOptions, runRecipe } from "../../src/training/run.ts";

const root = join(import.meta.dirname, "../..");
const colours = ["red", "green", "blue", "white", "black", "yellow"];
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-run-"));
  const images = join(folder, "data", "Images");
  await mkdir(images, { recursive: true });
  const rows = ["image,caption"];
  for (const background of colours) {
    const picture = sharp({ create: { width: 64, height: 48, channels: 3, background } });
    await picture.png().toFile(join(images, `${background}.png`));
    rows.push(`${background}.png,A ${background} wall .`, `${background}.png,Nothing but ${background} .`);
  }
  await writeFile(join(folder, "data", "captions.txt"), `${rows.join("\n")}\n`);
  await writeFile(join(folder, "recipe.yaml"), recipe());
});

afterAll(() => rm(folder, { recursive: true, force: true }));

function recipe(): string {
  return `
model:
  arch: minigpt4
  encoder: { type: efficientnet_lite0, image_size: 64 }
  encoder_ckpt: ${JSON.stringify(join(root, "models/nano/encoder.safetensors"))}
  qformer:
    num_query_tokens: 2
    hidden_size: 16
    num_hidden_layers: 1
    num_attention_heads: 2
    intermediate_size: 16
    encoder_width: 1280
    cross_attention_frequency: 1
  llm: ${JSON.stringify(join(root, "test/reference/golden/gqa/llama-safetensors"))}
  prompt_template: vicuna-v0
  prompts: [{ text: "<ImageHere>", end_sym: "\\n" }]
  max_txt_len: 32
datasets:
  walls: { path: ${JSON.stringify(join(folder, "data"))}, validate: 2 }
run:
  contrastive: { steps: 3, batch_size: 4, init_lr: 1.0e-3 }
  init_lr: 5.0e-3
  min_lr: 1.0e-3
  warmup_lr: 1.0e-3
  warmup_steps: 2
  weight_decay: 0.05
  max_epoch: 1
  iters_per_epoch: 12
  batch_size: 4
  answers_per_picture: 2
  views: 2
  crop_min_side: 0.8
  feature_dropout: 0.1
  qformer_dropout: 0.1
  validate_every: 4
  output_dir: ${JSON.stringify(join(folder, "out"))}
`;
}

/** Losses of the steps by stage, and of the validations. */
async function run(settings: readonly string[], options: RunOptions & { stopAfter?: number } = {}) {
  const stop = new AbortController();
  const losses: Record<string, number[]> = { contrastive: [], captions: [] };
  const watched: number[] = [];
  const out = await runRecipe(await readRecipe(join(folder, "recipe.yaml"), settings), {
    ...options,
    signal: stop.signal,
    onStep(stage, { step, loss }) {
      losses[stage]?.push(loss);
      if (stage === "captions" && step === options.stopAfter) stop.abort();
    },
    onValidation: (_, loss) => watched.push(loss),
  });
  return { out, losses, watched };
}

test("a recipe is run to a model folder; a stopped run goes on as if it had not been stopped", async () => {
  const whole = await run([]);
  expect(whole.losses.contrastive).toHaveLength(3);
  expect(whole.losses.captions).toHaveLength(12);
  const captions = whole.losses.captions as number[];
  expect(captions.at(-1)).toBeLessThan(captions[0] as number);
  expect(whole.watched).toHaveLength(3);
  const model = await openModelFolder(whole.out);
  expect(model.config.qformer?.numQueryTokens).toBe(2);
  await model.close();

  const other = [`run.output_dir=${JSON.stringify(join(folder, "stopped"))}`];
  const first = await run(other, { stopAfter: 5 });
  const second = await run(other, { resume: true });
  expect([...(first.losses.captions ?? []), ...(second.losses.captions ?? [])]).toEqual(captions);
  expect(second.losses.contrastive).toEqual([]);
});

test("a run that is stopped before its captions leaves nothing to go on from, and says so", async () => {
  const settings = [`run.output_dir=${JSON.stringify(join(folder, "early"))}`];
  const stop = new AbortController();
  const messages: string[] = [];
  const options = { signal: stop.signal, onMessage: (message: string) => messages.push(message) };
  const recipe = await readRecipe(join(folder, "recipe.yaml"), settings);
  await expect(runRecipe(recipe, { ...options, onStep: () => stop.abort() })).rejects.toThrow(/aborted/);
  expect(messages.at(-1)).toMatch(/contrastive stage/);
  await expect(runRecipe(recipe, { resume: true })).rejects.toThrow(/no saved state.*without --resume/);
  const before = [`run.output_dir=${JSON.stringify(join(folder, "earlier"))}`];
  await expect(
    runRecipe(await readRecipe(join(folder, "recipe.yaml"), before), { signal: AbortSignal.abort() }),
  ).rejects.toThrow(/aborted/);
  expect(await readdir(join(folder, "earlier"))).toEqual([]);
});

test("the encoder's classes need a name each, from a data set of the recipe", async () => {
  await expect(run(["run.contrastive.class_names=walls"])).rejects.toThrow(
    /class_names: data set walls has 4 pictures.*1000 classes/s,
  );
  await expect(run(["run.contrastive.class_names=doors"])).rejects.toThrow(/doors.*walls/s);
});

test("features that were kept are used again, and made anew when their file is no longer right", async () => {
  const path = join(folder, "out", "features.safetensors");
  const kept = await readFile(path);
  await copyFile(path, join(folder, "copy"));
  const encoded: number[] = [];
  await run(["run.iters_per_epoch=1"], { onFeatures: (done) => encoded.push(done) });
  expect(encoded).toEqual([]);
  await writeFile(path, kept.subarray(0, 1000));
  await run(["run.iters_per_epoch=1"], { onFeatures: (done) => encoded.push(done) });
  expect(encoded.length).toBeGreaterThan(0);
  expect(await readFile(path)).toEqual(kept);
});
