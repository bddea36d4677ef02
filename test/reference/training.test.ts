/** Losses, gradients and a whole small training run against the original's: through recipe, data, cache, stage and trainer. */
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type Dataset, type ImageTextPair, listPairs } from "../../src/data/dataset.ts";
import type { SessionOptions } from "../../src/runtime/session.ts";
import { BatchLoader, type DrawSource } from "../../src/training/batch-loader.ts";
import { openParts } from "../../src/training/parts.ts";
import { readMiniGPT4Recipe } from "../../src/training/recipe.ts";
import { captionStage } from "../../src/training/stages/caption-stage.ts";
import { stepRandom } from "../../src/training/stages/stage.ts";
import { choosePrompt, readPrompts, type TrainingPrompt } from "../../src/training/stages/texts.ts";
import { readSettings, type StepReport, Trainer } from "../../src/training/trainer.ts";
import { TrainingData } from "../../src/training/training-data.ts";
import { expectDeviation, largestDifference, relativeDifference } from "../helpers/deviations.ts";
import { GoldenSet, goldenFolders } from "../helpers/golden-set.ts";

const engine: SessionOptions = { device: "cpu" };
let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "minigpt4-golden-training-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** How a case is fed. The numbers of the goldens come out whichever way it is. */
const ways = [
  { way: "as it comes", settings: ["run.feature_cache=false"], loss: 1e-4, gradient: 1e-3, trained: 1e-3 },
  // Two batches a step, added up.
  {
    way: "accumulated",
    settings: ["run.feature_cache=false", "run.batch_size=HALF", "run.accum_grad_iters=2"],
    loss: 1e-4,
    gradient: 1e-3,
    trained: 1e-3,
  },
  // Features are rounded to float16.
  { way: "cached", settings: [], loss: 1e-3, gradient: 1e-2, trained: 1e-3 },
] as const;

describe.each(goldenFolders())("%s", (folder) => {
  const name = folder.split(/[\\/]/).at(-1);

  test.each(ways)(
    "both stages, $way: loss and gradients of the projection",
    async ({ way, settings, loss, gradient }) => {
      const set = await GoldenSet.load(folder);
      for (const stage of ["stage1", "stage2"] as const) {
        const run = await trainGoldens(set, stage, settings, [[0, 1, 2, 3, 4, 5, 6, 7]]);
        const label = `${name}: ${stage}, ${way}:`;
        expectDeviation(`${label} loss`, Math.abs((run.reports[0]?.loss ?? 0) - set.goldens[stage].loss), loss);
        for (const part of ["weight", "bias"] as const) {
          // The first step's running mean is a tenth of the gradient.
          const found = run.state.means[`llama_proj.${part}`]?.data.map((value) => value / 0.1) ?? [];
          const expected = await set.tensors.readFloat32(`${stage}_grad_${part}`);
          expectDeviation(
            `${label} gradient of llama_proj.${part} (relative)`,
            relativeDifference(found, expected),
            gradient,
          );
        }
      }
      await set.close();
    },
  );

  test.each(ways)("the training trace, $way", async ({ way, settings, trained }) => {
    const set = await GoldenSet.load(folder);
    const { trace } = set.goldens.training;
    const run = await trainGoldens(
      set,
      "stage1",
      settings,
      trace.map(({ samples }) => samples),
    );
    const label = `${name}: ${trace.length} steps, ${way}:`;
    const rates = trace.map(({ lr }, i) => Math.abs(lr - (run.reports[i]?.learningRate ?? 0)));
    const losses = trace.map((step, i) => Math.abs(step.loss - (run.reports[i]?.loss ?? 0)));
    expectDeviation(`${label} learning rates`, Math.max(...rates), 1e-9);
    expectDeviation(`${label} losses`, Math.max(...losses), 1e-3);
    for (const part of ["weight", "bias"] as const) {
      const found = run.state.parameters[`llama_proj.${part}`]?.data as Float32Array;
      const expected = await set.tensors.readFloat32(`trained_${part}`);
      expectDeviation(`${label} trained llama_proj.${part}`, largestDifference(found, expected), trained);
    }
    await set.close();
  });
});

/** Trains the projection on given images in each step, numbered as the goldens list them. */
async function trainGoldens(
  set: GoldenSet,
  stage: "stage1" | "stage2",
  settings: readonly string[],
  steps: readonly (readonly number[])[],
) {
  const size = steps[0]?.length ?? 0;
  const path = await writeRecipe(set, stage, size, steps.length);
  const recipe = await readMiniGPT4Recipe(
    path,
    settings.map((setting) => setting.replace("HALF", `${size / 2}`)),
  );
  await using parts = await openParts(recipe);
  await using data = await TrainingData.open(recipe, parts, { session: engine });
  const prompts = await readPrompts(recipe, parts.llm.tokenizer);
  const seed = seedOf(prompts, set.goldens[stage].instruction);
  const pairs = await listPairs(data.datasets[0] as Dataset);
  const order = set.goldens.images.map((image) => pairs.find(({ name }) => name.endsWith(image)) as ImageTextPair);
  const left = [...steps];
  const draws: DrawSource = {
    take: async () => (left.shift() ?? []).map((image) => ({ pair: order[image] as ImageTextPair, dataset: 0 })),
    save: () => ({ streams: [], behind: [] }),
  };
  const views = { count: 1, minSide: 1 };
  await using trainer = await Trainer.create({
    stage: captionStage({ recipe, parts, source: parts.image, prompts, textsOf: data.textsOf }),
    source: parts.image,
    data: {
      frozen: data.frozen,
      validation: [],
      load: (samples) => data.load(samples),
      batches: (batchSize, firstStep) =>
        new BatchLoader(draws, data.loader, data.problems, { batchSize, views, seed, firstStep }),
    },
    settings: { ...readSettings(recipe, steps.length), seed },
    session: engine,
  });
  const reports: StepReport[] = [];
  for (const _ of steps) reports.push(await trainer.step());
  return { reports, state: trainer.state };
}

/** The seed whose first step draws just the instructions that the goldens were made with. */
function seedOf(prompts: readonly TrainingPrompt[], instructions: readonly string[] | null): number {
  if (!instructions) return 0;
  for (let seed = 0; ; seed++) {
    const random = stepRandom(seed, 0);
    if (instructions.every((text) => choosePrompt(prompts, random).text === text)) return seed;
  }
}

async function writeRecipe(set: GoldenSet, stage: "stage1" | "stage2", size: number, steps: number): Promise<string> {
  const { answers, instruction, end_sym: endSym, max_txt_len: maxLength } = set.goldens[stage];
  const { training } = set.goldens;
  const data = join(scratch, set.name, stage);
  await mkdir(join(data, "Images"), { recursive: true });
  const lines: string[] = [];
  for (const [i, image] of set.goldens.images.entries()) {
    await copyFile(set.imagePaths[i] as string, join(data, "Images", image));
    lines.push(JSON.stringify({ image, caption: answers[i] }));
  }
  await writeFile(join(data, "pairs.jsonl"), `${lines.join("\n")}\n`);
  const { encoder, qformer } = set.config();
  if (encoder.type !== "eva_vit" || !qformer) throw new Error("The goldens are of a ViT with a Q-Former");
  const prompts = instruction ? [...new Set(instruction)].map((text) => ({ text })) : undefined;
  const recipe = {
    model: {
      arch: "mini_gpt4",
      encoder: {
        type: "eva_vit",
        image_size: encoder.imageSize,
        patch_size: encoder.patchSize,
        hidden_size: encoder.hiddenSize,
        num_hidden_layers: encoder.numHiddenLayers,
        num_attention_heads: encoder.numAttentionHeads,
        intermediate_size: encoder.intermediateSize,
      },
      encoder_ckpt: join(set.folder, "eva_vit.pth"),
      qformer: {
        num_query_tokens: qformer.numQueryTokens,
        hidden_size: qformer.hiddenSize,
        num_hidden_layers: qformer.numHiddenLayers,
        num_attention_heads: qformer.numAttentionHeads,
        intermediate_size: qformer.intermediateSize,
        encoder_width: qformer.encoderWidth,
      },
      qformer_ckpt: join(set.folder, "blip2_qformer.pth"),
      ckpt: join(set.folder, "minigpt4.pth"),
      llama_model: join(set.folder, "llama-safetensors"),
      ...(prompts && { prompts }),
      end_sym: endSym,
      max_txt_len: maxLength,
    },
    datasets: { goldens: { path: join(data, "pairs.jsonl"), text_processor: "none" } },
    run: {
      init_lr: training.init_lr,
      min_lr: training.min_lr,
      warmup_lr: training.warmup_lr,
      warmup_steps: training.warmup_steps,
      weight_decay: training.weight_decay.weight,
      max_epoch: 1,
      iters_per_epoch: steps,
      batch_size: size,
      feature_cache: join(scratch, "features"),
      output_dir: join(data, "out"),
    },
  };
  const path = join(data, "recipe.yaml");
  // JSON is YAML.
  await writeFile(path, JSON.stringify(recipe, null, 2));
  return path;
}
