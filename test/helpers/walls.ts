/** A tiny data set of painted walls, and a recipe that trains a tiny model on it. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";

const root = join(import.meta.dirname, "../..");
const colours = ["red", "green", "blue", "white", "black", "yellow"];

/** A folder as Flickr8k has it, with two sentences an image. */
export async function writeWalls(folder: string): Promise<void> {
  const images = join(folder, "Images");
  await mkdir(images, { recursive: true });
  const rows = ["image,caption"];
  for (const background of colours) {
    const image = sharp({ create: { width: 64, height: 48, channels: 3, background } });
    await image.png().toFile(join(images, `${background}.png`));
    rows.push(`${background}.png,A ${background} wall .`, `${background}.png,Nothing but ${background} .`);
  }
  await writeFile(join(folder, "captions.txt"), `${rows.join("\n")}\n`);
}

/** A recipe over `data` in the folder, with a contrastive stage of 3 steps and 12 steps of captions. */
export async function writeRecipe(folder: string): Promise<string> {
  const path = join(folder, "recipe.yaml");
  await writeFile(
    path,
    `
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
  trained: [projection, qformer]
  llm: ${JSON.stringify(join(root, "test/reference/golden/gqa/llama-safetensors"))}
  max_txt_len: 32
datasets:
  walls: { path: ${JSON.stringify(join(folder, "data"))}, validation: 2 }
run:
  contrastive: { steps: 3, batch_size: 4, init_lr: 1.0e-3 }
  init_lr: 5.0e-3
  min_lr: 1.0e-3
  warmup_lr: 1.0e-3
  warmup_steps: 2
  max_epoch: 1
  iters_per_epoch: 12
  batch_size: 4
  answers_per_image: 2
  views: 2
  crop_min_side: 0.8
  feature_dropout: 0.1
  qformer_dropout: 0.1
  ema_decay: 0.5
  validate_every: 4
  save_every: 5
  describe: 1
  num_workers: 1
  feature_cache: ${JSON.stringify(join(folder, "cache"))}
  output_dir: ${JSON.stringify(join(folder, "out"))}
`,
  );
  return path;
}
