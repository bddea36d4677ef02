import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { isPretraining, readMiniGPT4Recipe, readRecipe } from "../../src/training/recipe.ts";

const nano = join(import.meta.dirname, "../../recipes/nano.yaml");
const folder = await mkdtemp(join(tmpdir(), "recipe-"));
afterAll(() => rm(folder, { recursive: true }));

async function written(change: (text: string) => string): Promise<string> {
  const path = join(folder, `${Math.random()}.yaml`);
  await writeFile(path, change(await readFile(nano, "utf8")));
  return path;
}

test("the recipe that comes with the package is valid", async () => {
  const { recipe } = await readRecipe(nano);
  expect(recipe.model.qformer?.num_query_tokens).toBe(8);
  expect(recipe.datasets.flickr8k?.hold_out).toBe(100);
});

test("the recipe of its contrastive head trains that alone, on what the model was trained on", async () => {
  const [whole, head] = await Promise.all(
    ["nano.yaml", "nano-contrastive-head.yaml"].map((name) => readRecipe(join(nano, "..", name))),
  );
  expect(head?.recipe.model.trained).toEqual(["contrastive_head"]);
  expect(head?.recipe.model.qformer).toEqual(whole?.recipe.model.qformer);
  for (const key of ["hold_out", "validation", "answer"] as const) {
    expect(head?.recipe.datasets.flickr8k?.[key]).toBe(whole?.recipe.datasets.flickr8k?.[key]);
  }
});

test("BLIP-2's two steps, with the paper's numbers and at the size of the small model", async () => {
  const read = async (name: string) => (await readRecipe(join(nano, "..", name))).recipe;
  const first = await read("blip2-stage1.yaml");
  const second = await readMiniGPT4Recipe(join(nano, "..", "blip2-stage2.yaml"));
  if (!isPretraining(first)) throw new Error("blip2-stage1.yaml pre-trains a Q-Former");
  expect(first.model).toMatchObject({ embed_dim: 256, losses: ["itc", "itm", "itg"], max_txt_len: 32 });
  expect(first.run.max_epoch * (first.run.iters_per_epoch ?? 0)).toBe(250_000);
  expect(first.run.batch_size * first.run.accum_grad_iters).toBe(1680);
  expect(second.run.max_epoch * (second.run.iters_per_epoch ?? 0)).toBe(80_000);
  expect(second.run.batch_size * second.run.accum_grad_iters).toBe(1520);
  expect(second.model.qformer_ckpt).toBe(first.run.output_dir);
  for (const { run } of [first, second]) {
    expect(run).toMatchObject({ init_lr: 1e-4, min_lr: 1e-5, warmup_lr: 1e-6, weight_decay: 0.05 });
  }
  const [small, joined] = [await read("nano-qformer.yaml"), await read("nano-generative.yaml")];
  expect(joined.model.qformer).toEqual(small.model.qformer);
  for (const key of ["hold_out", "validation"] as const) {
    expect(joined.datasets.flickr8k?.[key]).toBe(small.datasets.flickr8k?.[key]);
  }
});

test("settings replace values, numbers as numbers", async () => {
  const { recipe } = await readRecipe(nano, ["run.init_lr=3e-5", "datasets.flickr8k.path=/data/a=b", "run.views=1"]);
  expect(recipe.run.init_lr).toBe(3e-5);
  expect(recipe.datasets.flickr8k?.path).toBe("/data/a=b");
  expect(recipe.run.views).toBe(1);
});

test("a wrong value is named with its file, line and key", async () => {
  const path = await written((text) => text.replace("weight_decay: 0.05", "weight_decay: much"));
  const line = (await readFile(path, "utf8")).split("\n").findIndex((text) => text.includes("weight_decay")) + 1;
  await expect(readRecipe(path)).rejects.toThrow(`${path}:${line}: run.weight_decay`);
});

test("a seed that would run into the numbers of the steps is refused", async () => {
  await expect(readRecipe(nano, ["run.seed=20261126"])).rejects.toThrow(/run\.seed: .*1000000/);
  expect((await readRecipe(nano, ["run.seed=1000000"])).recipe.run.seed).toBe(1_000_000);
});

test("unknown keys, broken YAML, broken settings and missing files are refused", async () => {
  await expect(readRecipe(await written((text) => `${text}\nextra: 1\n`))).rejects.toThrow(/extra/);
  await expect(readRecipe(await written(() => "a: [1"))).rejects.toThrow(/\.yaml: /);
  await expect(readRecipe(nano, ["run.init_lr"])).rejects.toThrow(/key\.key=value/);
  await expect(readRecipe(join(folder, "none.yaml"))).rejects.toThrow(/cannot be read/);
});

test("the recipes of the paper have its numbers", async () => {
  const { recipe: first } = await readRecipe(join(nano, "../stage1.yaml"));
  expect(first.run).toMatchObject({
    init_lr: 1e-4,
    min_lr: 8e-5,
    warmup_lr: 1e-6,
    warmup_steps: 5000,
    weight_decay: 0.05,
  });
  expect(first.run.batch_size * first.run.accum_grad_iters).toBe(256);
  expect(first.run.max_epoch * (first.run.iters_per_epoch ?? 0)).toBe(20_000);
  expect(Object.values(first.datasets).map(({ sample_ratio }) => sample_ratio)).toEqual([115, 14]);
  expect(first.model).toMatchObject({ arch: "minigpt4", max_txt_len: 32, end_sym: "\n", trained: ["projection"] });
  expect(first.model.encoder).toMatchObject({ hidden_size: 1408, num_hidden_layers: 39, intermediate_size: 6144 });
  const second = await readMiniGPT4Recipe(join(nano, "../stage2.yaml"));
  expect(second.run).toMatchObject({ init_lr: 3e-5, min_lr: 1e-5, warmup_steps: 200, batch_size: 12 });
  expect(second.run.max_epoch * (second.run.iters_per_epoch ?? 0)).toBe(400);
  expect(second.model).toMatchObject({
    max_txt_len: 160,
    end_sym: "###",
    prompt_template: "###Human: {} ###Assistant: ",
  });
  // The wording is the paper's, word for word.
  expect(second.model.prompts?.map(({ text }) => text.replace("<Img><ImageHere></Img> ", ""))).toEqual([
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
  ]);
});

test("keys of the original project are understood, or listed as ignored", async () => {
  const path = join(folder, "original.yaml");
  await writeFile(path, original);
  const { recipe, ignored } = await readRecipe(path, ["model.encoder_ckpt=vit.pth", "model.qformer_ckpt=blip2.pth"]);
  expect(recipe.model).toMatchObject({
    arch: "minigpt4",
    encoder: { type: "eva_vit", image_size: 224, hidden_size: 1408 },
    qformer: { num_query_tokens: 32, hidden_size: 768 },
    llm: "/vicuna",
    ckpt: "/stage1.pth",
    trained: ["projection"],
    prompt_path: "prompts/alignment.txt",
  });
  expect(recipe.datasets.cc_sbu_align).toMatchObject({ path: "/cc_sbu_align" });
  expect(recipe.datasets.cc_sbu_align).not.toHaveProperty("text_processor");
  expect(recipe.run).toMatchObject({ batch_size: 12, num_workers: 4, output_dir: "output/stage2" });
  expect(ignored).toContain("run.amp");
  expect(ignored).toContain("datasets.cc_sbu_align.vis_processor");
  const thawed = await readRecipe(path, ["model.encoder_ckpt=vit.pth", "model.freeze_qformer=false"]);
  expect(thawed.recipe.model.trained).toEqual(["projection", "qformer"]);
  await expect(readRecipe(path, ["model.encoder_ckpt=vit.pth", "model.freeze_vit=false"])).rejects.toThrow(
    /always frozen/,
  );
  await expect(readRecipe(path, [])).rejects.toThrow(/model\.encoder_ckpt/);
});

const original = `
model:
  arch: mini_gpt4
  model_type: pretrain_vicuna
  freeze_vit: True
  freeze_qformer: True
  llama_model: "/vicuna"
  num_query_token: 32
  image_size: 224
  max_txt_len: 160
  end_sym: "###"
  prompt_path: "prompts/alignment.txt"
  prompt_template: '###Human: {} ###Assistant: '
  ckpt: '/stage1.pth'
datasets:
  cc_sbu_align:
    data_type: images
    build_info:
      storage: /cc_sbu_align
    vis_processor:
      train:
        name: "blip2_image_train"
        image_size: 224
    text_processor:
      train:
        name: "blip_caption"
run:
  task: image_text_pretrain
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 3e-5
  min_lr: 1e-5
  warmup_lr: 1e-6
  weight_decay: 0.05
  max_epoch: 5
  iters_per_epoch: 200
  batch_size_train: 12
  batch_size_eval: 12
  num_workers: 4
  warmup_steps: 200
  seed: 42
  output_dir: "output/stage2"
  amp: True
  resume_ckpt_path: null
  evaluate: False
  train_splits: ["train"]
  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
`;
