/** A run of a recipe: features, the contrastive stage where there is one, the stage itself, and the model folder. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { pull } from "../checkpoints/pull.ts";
import type { MiniGPT4Config } from "../models/minigpt4.ts";
import { encoderConfig, qformerConfig } from "../models/model-folder.ts";
import { type OpenLlama, openLlama } from "../models/open-llama.ts";
import { initialProjection, initialQFormer, type NamedArrays } from "../models/qformer-initial.ts";
import { Random } from "../tensor/random.ts";
import { captionStage } from "./caption-stage.ts";
import { contrastiveStage } from "./contrastive-stage.ts";
import { readExamples } from "./dataset.ts";
import { openFeatures } from "./features.ts";
import { type Prepared, type RunOptions, sessionOptions } from "./prepared.ts";
import type { Recipe } from "./recipe.ts";
import { saveModelFolder } from "./save.ts";

export type { RunOptions } from "./prepared.ts";

/** Runs a recipe. @returns the folder of the trained model, which `MiniGPT4.load` takes */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  const { model, run } = recipe;
  await mkdir(run.output_dir, { recursive: true });
  const llm = await openLlama(existsSync(model.llm) ? model.llm : await pull(model.llm));
  try {
    const prepared = await prepare(recipe, llm, options);
    try {
      const trained = await captionStage(prepared, () => initialWeights(prepared));
      await saveModelFolder(run.output_dir, modelJson(recipe), trained, model.encoder_ckpt);
      return run.output_dir;
    } finally {
      await prepared.features.close();
    }
  } finally {
    await llm.checkpoint.close();
  }
}

async function prepare(recipe: Recipe, llm: OpenLlama, options: RunOptions): Promise<Prepared> {
  const { model, run } = recipe;
  const encoder = encoderConfig(model.encoder);
  const config: MiniGPT4Config = { encoder, ...qformerConfig(model.qformer), llm: llm.config };
  const read = await readExamples(recipe, llm.tokenizer);
  const sets = read.map(({ train }) => train);
  const validation = read.flatMap((set) => set.validation);
  const texts = sets.flat().flatMap(({ captions }) => captions);
  options.onMessage?.(`${sets.flat().length} pictures, ${texts.length} texts to learn from`);
  const pictures = [...sets.flat(), ...validation].map(({ pair }) => pair);
  const features = await openFeatures(pictures, encoder, {
    ...sessionOptions(options),
    encoderPath: model.encoder_ckpt,
    storePath: join(run.output_dir, "features.safetensors"),
    views: { count: run.views, minSide: run.crop_min_side },
    onProgress: options.onFeatures ?? (() => {}),
    ...(options.signal && { signal: options.signal }),
  });
  return { recipe, config, llm, sets, validation, features, random: new Random(run.seed), options };
}

/** The Q-Former and projection that the caption stage begins with. */
async function initialWeights(prepared: Prepared): Promise<NamedArrays> {
  const { recipe, config, random } = prepared;
  if (!config.qformer) throw new Error("This recipe trains a Q-Former, but model.qformer is missing");
  const parameters = {
    ...initialQFormer(config.qformer, random),
    ...initialProjection(config.qformer.hiddenSize, config.llm.hiddenSize, random),
  };
  const { contrastive } = recipe.run;
  return contrastive ? contrastiveStage(prepared, contrastive, parameters) : parameters;
}

function modelJson({ model }: Recipe) {
  const [first] = model.prompts;
  return {
    model_type: "minigpt4" as const,
    encoder: model.encoder,
    qformer: model.qformer,
    llm: model.llm,
    weights: {
      encoder: "encoder.safetensors",
      qformer: "qformer.safetensors",
      projection: "projection.safetensors",
    },
    prompt_template: model.prompt_template as "chatml",
    describe: describePrompt(first?.text ?? "", first?.end_sym ?? ""),
  };
}

/** The words after the picture are said again before a description: "A photo of" two dogs. */
function describePrompt(prompt: string, endSym: string) {
  const [before = "", after = ""] = prompt.split("<ImageHere>");
  return { prompt: `${before}<ImageHere>`, begins_with: after, stop: [endSym] };
}
