/** How much of a training step is spent waiting for images that come from web shards, are decoded and encoded once. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import sharp from "sharp";
import { pack } from "tar-stream";
import { Random } from "../src/tensor/random.ts";
import { readMiniGPT4Recipe } from "../src/training/recipe.ts";
import { runRecipe } from "../src/training/run.ts";
import { stage1Files, stage1Recipe } from "./stage1-files.ts";
import { quarter } from "./stage1-shapes.ts";

export interface DataShare {
  readonly name: string;
  readonly images: number;
  /** Of the steps that count together, and the part of it that was spent waiting for data. */
  readonly seconds: number;
  readonly dataSeconds: number;
}

const shards = 2;
const imagesOfShard = 128;
/** The first steps, for which nothing could be loaded ahead, and those that count. */
const [warmUp, counted] = [2, 20];
const words = "a dog runs over the green grass while two children in red shirts watch it from behind fence".split(" ");

export async function benchDataShare(threads: number): Promise<DataShare[]> {
  const folder = await mkdtemp(join(tmpdir(), "minigpt4-bench-"));
  try {
    const random = new Random(1);
    for (let i = 0; i < shards; i++) await writeFile(join(folder, `0000${i}.tar`), await shard(random));
    const quarterPath = join(folder, "quarter.yaml");
    await writeFile(quarterPath, JSON.stringify(stage1Recipe(await stage1Files("quarter", quarter), quarter)));
    const nanoPath = join(import.meta.dirname, "../recipes/nano.yaml");
    return [
      { name: "MiniGPT-4's first stage at a quarter of its size", ...(await run(folder, quarterPath, 16, threads)) },
      { name: "EfficientNet-Lite0 and SmolLM2-135M", ...(await run(folder, nanoPath, 13, threads)) },
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Takes some steps of a recipe with the shards for its data. */
async function run(folder: string, recipePath: string, images: number, threads: number) {
  const recipe = await readMiniGPT4Recipe(recipePath, [
    `datasets=${JSON.stringify({ shards: { path: folder } })}`,
    "run.contrastive=null",
    "run.feature_cache=false",
    `run.batch_size=${images}`,
    `run.iters_per_epoch=${warmUp + counted}`,
    `run.output_dir=${JSON.stringify(join(folder, "run"))}`,
  ]);
  let [seconds, dataSeconds] = [0, 0];
  await runRecipe(recipe, {
    threads,
    overwrite: true,
    onStep(_, report) {
      if (report.step <= warmUp) return;
      seconds += report.seconds;
      dataSeconds += report.dataSeconds;
    },
  });
  return { images, seconds, dataSeconds };
}

async function shard(random: Random): Promise<Buffer> {
  const tar = pack();
  const bytes = buffer(tar);
  for (let i = 0; i < imagesOfShard; i++) {
    const key = `${i}`.padStart(9, "0");
    const length = 6 + random.below(10);
    const caption = Array.from({ length }, () => words[random.below(words.length)]).join(" ");
    tar.entry({ name: `${key}.jpg` }, await image(random));
    tar.entry({ name: `${key}.json` }, JSON.stringify({ caption }));
  }
  tar.finalize();
  return bytes;
}

/** Shapes under noise, of about 400 x 300: as many bytes as a photograph of that size. */
async function image(random: Random): Promise<Buffer> {
  const [width, height] = [380 + random.below(41), 280 + random.below(41)];
  const shapes = Array.from({ length: 12 }, () => {
    const [x, y, radius, hue] = [random.below(width), random.below(height), 10 + random.below(90), random.below(360)];
    return `<circle cx="${x}" cy="${y}" r="${radius}" fill="hsl(${hue}, 60%, 50%)" fill-opacity="0.7"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${shapes.join("")}</svg>`;
  const noise = { type: "gaussian", mean: 128, sigma: 12 } as const;
  return sharp({ create: { width, height, channels: 3, background: "grey", noise } })
    .composite([{ input: Buffer.from(svg) }])
    .jpeg({ quality: 90 })
    .toBuffer();
}
