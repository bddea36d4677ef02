/** A run of a recipe: features, the contrastive stage where there is one, the stage itself, and the model folder. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { pull } from "../checkpoints/pull.ts";
import type { FeatureStore } from "../data/feature-store.ts";
import { Sampler, type SamplerState, sharesOf } from "../data/sampler.ts";
import { featureShape, type MiniGPT4Config, tokensPerImage } from "../models/minigpt4.ts";
import { encoderConfig, qformerConfig } from "../models/model-folder.ts";
import { type OpenLlama, openLlama } from "../models/open-llama.ts";
import { initialProjection, initialQFormer, type NamedArrays } from "../models/qformer-initial.ts";
import { Weights, weightsInMemory } from "../nn/weights.ts";
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { Random } from "../tensor/random.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { WeightAverage } from "./average.ts";
import { batchArrays, type Piece } from "./batch.ts";
import { captionArrays, centreWords, contrastiveLoss, initialContrastive } from "./contrastive.ts";
import { type Example, readExamples } from "./dataset.ts";
import { Dropout, dropoutMask } from "./dropout.ts";
import { openFeatures } from "./features.ts";
import { captionLoss } from "./loss.ts";
import type { Recipe } from "./recipe.ts";
import { loadState, saveModelFolder, saveState } from "./save.ts";
import { promptPieces } from "./stages.ts";
import { initialState, type TrainingState, TrainingStep } from "./step.ts";
import { type StepReport, train } from "./trainer.ts";
import { Validation } from "./validation.ts";

export interface RunOptions extends SessionOptions {
  /** Goes on from the saved state in the output folder. */
  readonly resume?: boolean;
  readonly onFeatures?: (done: number, total: number) => void;
  /** `stage` is "contrastive" or "captions". */
  readonly onStep?: (stage: string, report: StepReport) => void;
  /** The mean loss of the watched pictures' texts after a step. */
  readonly onValidation?: (step: number, loss: number) => void;
  readonly onMessage?: (message: string) => void;
  readonly signal?: AbortSignal;
}

/** Steps after which the state is saved. */
const saveEvery = 200;
const optimizer = { beta1: 0.9, beta2: 0.999, eps: 1e-8 };

/** Everything that both stages need. */
interface Prepared {
  readonly recipe: Recipe;
  readonly config: MiniGPT4Config;
  readonly llm: OpenLlama;
  readonly sets: readonly (readonly Example[])[];
  /** Their features follow those of `sets`. */
  readonly validation: readonly Example[];
  readonly features: FeatureStore;
  readonly random: Random;
  readonly options: RunOptions;
}

/** Runs a recipe. @returns the folder of the trained model, which `MiniGPT4.load` takes */
export async function runRecipe(recipe: Recipe, options: RunOptions = {}): Promise<string> {
  const { model, run } = recipe;
  const { onMessage = () => {} } = options;
  await mkdir(run.output_dir, { recursive: true });
  const llm = await openLlama(existsSync(model.llm) ? model.llm : await pull(model.llm));
  const encoder = encoderConfig(model.encoder);
  const config: MiniGPT4Config = { encoder, ...qformerConfig(model.qformer), llm: llm.config };
  const read = await readExamples(recipe, llm.tokenizer);
  const sets = read.map(({ train }) => train);
  const validation = read.flatMap((set) => set.validation);
  onMessage(
    `${sets.flat().length} pictures, ${sets.flat().flatMap(({ captions }) => captions).length} texts to learn from`,
  );
  const features = await openFeatures(
    [...sets.flat(), ...validation].map(({ pair }) => pair),
    encoder,
    {
      ...sessionOptions(options),
      encoderPath: model.encoder_ckpt,
      storePath: join(run.output_dir, "features.safetensors"),
      views: { count: run.views, minSide: run.crop_min_side },
      onProgress: options.onFeatures ?? (() => {}),
    },
  );
  const prepared = { recipe, config, llm, sets, validation, features, random: new Random(run.seed), options };
  try {
    const trained = await captionStage(prepared);
    await saveModelFolder(run.output_dir, modelJson(recipe), trained, model.encoder_ckpt);
    return run.output_dir;
  } finally {
    await features.close();
    await llm.checkpoint.close();
  }
}

/** The Q-Former and projection that the caption stage begins with. */
async function initialWeights(prepared: Prepared): Promise<NamedArrays> {
  const { recipe, config, random } = prepared;
  if (!config.qformer) throw new Error("This recipe trains a Q-Former, but model.qformer is missing");
  const parameters = {
    ...initialQFormer(config.qformer, random),
    ...initialProjection(config.qformer.hiddenSize, config.llm.hiddenSize, random),
  };
  return recipe.run.contrastive ? contrastiveStage(prepared, parameters) : parameters;
}

/** Trains Q-Former and projection to tell pictures apart; returns their weights. */
async function contrastiveStage(prepared: Prepared, initial: NamedArrays): Promise<NamedArrays> {
  const { recipe, config, llm, sets, random, options } = prepared;
  const stage = recipe.run.contrastive;
  if (!stage) return initial;
  const table = await llm.checkpoint.readFloat32("model.embed_tokens.weight");
  const words = centreWords(table, llm.config.vocabSize, llm.config.hiddenSize);
  const captions = sets.flat().flatMap((example) => example.captions);
  const parameters = { ...initial, ...initialContrastive(captions, words) };
  const graph = new Graph();
  const trained = new Weights(graph, weightsInMemory("the weights in training", parameters), { trainable: () => true });
  const features = graph.input("features", "float32", ["images", ...featureShape(config.encoder)]);
  const parts = { encoder: trained, qformer: trained, projection: trained };
  const dropout = new Dropout(graph, recipe.run.qformer_dropout);
  const loss = contrastiveLoss(parts, trained, words, features, config, (x) => dropout.apply(x));
  const step = await createStep(graph, loss, trained, initialState(parameters), prepared);
  const average = new WeightAverage(parameters, recipe.run.average_decay);
  const sampler = samplerOf(prepared, stage.batch_size);
  try {
    await train(step, {
      schedule: {
        initLr: stage.init_lr,
        minLr: stage.init_lr * 0.02,
        warmupLr: 0,
        warmupSteps: stage.warmup_steps,
        totalSteps: stage.steps,
      },
      average,
      onStep: (report) => options.onStep?.("contrastive", report),
      ...(options.signal && { signal: options.signal }),
      nextBatch: async () => {
        const chosen = choose(prepared, sampler);
        const arrays = captionArrays(chosen.map(({ example }) => pick(example.captions, random)));
        const feeds = {
          ...arrays,
          ...dropout.feeds(chosen.length, random),
          features: await readFeatures(prepared, chosen),
        };
        return { feeds, names: namesOf(chosen) };
      },
    });
  } finally {
    await step.release();
  }
  return Object.fromEntries(Object.keys(initial).map((name) => [name, average.arrays[name] as NdArray<"float32">]));
}

/** The stage itself: captions through the frozen language model. Returns the weights to keep. */
async function captionStage(prepared: Prepared): Promise<NamedArrays> {
  const { recipe, config, llm, random, options } = prepared;
  const { run, model } = recipe;
  const statePath = join(run.output_dir, "state.safetensors");
  const saved = options.resume ? await loadState(statePath) : undefined;
  const state = saved?.state ?? initialState(await initialWeights(prepared));
  const place = saved?.place as { random: number[]; sampler: SamplerState } | undefined;
  const draws = place ? Random.from(place.random) : random;
  const sampler = samplerOf({ ...prepared, random: draws }, run.batch_size, place?.sampler);
  const graph = new Graph();
  const source = weightsInMemory("the weights in training", state.parameters);
  const trained = new Weights(graph, source, { trainable: () => true });
  const weights = { encoder: trained, qformer: trained, projection: trained, llm: new Weights(graph, llm.checkpoint) };
  const dropout = new Dropout(graph, run.qformer_dropout);
  const loss = captionLoss(weights, config, (x) => dropout.apply(x));
  const step = await createStep(graph, loss, trained, state, prepared);
  const average = new WeightAverage(saved?.average ?? state.parameters, run.average_decay);
  const prompts = model.prompts.map(({ text, end_sym: end, sample_ratio: ratio }) => ({
    pieces: promptPieces(text, llm.tokenizer),
    end: llm.tokenizer.encode(end),
    ratio,
  }));
  const validation = await createValidation(prepared, state.parameters, prompts[0]?.pieces ?? []);
  const save = () =>
    saveState(statePath, step.state, average.arrays, { random: draws.save(), sampler: sampler.save() });
  try {
    await train(step, {
      schedule: {
        initLr: run.init_lr,
        minLr: run.min_lr,
        warmupLr: run.warmup_lr,
        warmupSteps: run.warmup_steps,
        totalSteps: run.max_epoch * run.iters_per_epoch,
      },
      average,
      onStep: async (report) => {
        options.onStep?.("captions", report);
        if (report.step % saveEvery === 0) await save();
        if (validation && report.step % run.validate_every === 0) {
          const loss = await validation.measure(average.arrays);
          options.onValidation?.(report.step, loss);
        }
      },
      ...(options.signal && { signal: options.signal }),
      nextBatch: async () => {
        const chosen = choose({ ...prepared, random: draws }, sampler);
        const samples = chosen.map(({ example }, image) => {
          const { pieces, end } = pickByRatio(prompts, draws);
          const captions = draws.shuffle([...example.captions]).slice(0, run.answers_per_picture);
          return {
            image,
            prompt: pieces,
            answers: captions.map((ids) => [...ids, ...end].slice(0, model.max_txt_len)),
          };
        });
        const arrays = await readFeatures({ ...prepared, random: draws }, chosen);
        const feeds = {
          ...batchArrays(samples, arrays, tokensPerImage(config)),
          ...dropout.feeds(chosen.length, draws),
        };
        return { feeds, names: namesOf(chosen) };
      },
    });
    await save();
    return validation?.bestWeights ?? average.arrays;
  } finally {
    await step.release();
    await validation?.release();
  }
}

/** None where the recipe watches no pictures. */
async function createValidation(
  { recipe, config, llm, sets, validation, features, options }: Prepared,
  parameters: NamedArrays,
  prompt: readonly Piece[],
): Promise<Validation | undefined> {
  if (validation.length === 0) return undefined;
  const { views } = recipe.run;
  const rows = { first: sets.flat().length * views, views };
  return Validation.create(validation, features, rows, prompt, parameters, { config, llm }, sessionOptions(options));
}

async function createStep(
  graph: Graph,
  loss: ReturnType<typeof captionLoss>,
  weights: Weights,
  state: TrainingState,
  { recipe, options }: Prepared,
): Promise<TrainingStep> {
  const settings = { ...optimizer, weightDecay: recipe.run.weight_decay };
  return TrainingStep.create(graph, loss, weights.trained, state, settings, sessionOptions(options));
}

function sessionOptions({ device, threads }: RunOptions): SessionOptions {
  return { ...(device && { device }), ...(threads && { threads }) };
}

interface Chosen {
  readonly example: Example;
  /** Row of the features: one view of the picture. */
  readonly row: number;
}

function samplerOf({ recipe, sets, random }: Prepared, batchSize: number, state?: SamplerState): Sampler {
  const ratios = Object.values(recipe.datasets).map(({ sample_ratio }) => sample_ratio);
  const perBatch = sharesOf(ratios, batchSize);
  const shares = sets.map((set, i) => ({ size: set.length, perBatch: perBatch[i] as number }));
  return new Sampler(shares, random, state);
}

/** The pictures of the next batch, each in a random view. */
function choose({ recipe, sets, random }: Prepared, sampler: Sampler): Chosen[] {
  const { views } = recipe.run;
  return sampler.next().flatMap((samples, set) => {
    const before = sets.slice(0, set).reduce((sum, { length }) => sum + length, 0);
    return samples.map((index) => ({
      example: sets[set]?.[index] as Example,
      row: (before + index) * views + random.below(views),
    }));
  });
}

/** Features of the chosen views, [images, cells, width], a share of them set to zero and the rest scaled up (dropout). */
async function readFeatures(
  { recipe, features, random }: Prepared,
  chosen: readonly Chosen[],
): Promise<NdArray<"float32">> {
  const size = sizeOf(features.shape);
  const data = new Float32Array(chosen.length * size);
  await Promise.all(chosen.map(({ row }, i) => features.read(row, data.subarray(i * size, (i + 1) * size))));
  const { feature_dropout: share } = recipe.run;
  if (share > 0) {
    const mask = dropoutMask(data.length, share, random);
    for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) * (mask[i] as number);
  }
  return ndarray("float32", [chosen.length, ...features.shape], data);
}

function namesOf(chosen: readonly Chosen[]): string[] {
  return chosen.map(({ example }) => example.pair.picture);
}

function pick<T>(items: readonly T[], random: Random): T {
  return items[random.below(items.length)] as T;
}

function pickByRatio<T extends { readonly ratio: number }>(items: readonly T[], random: Random): T {
  let rest = random.uniform() * items.reduce((sum, { ratio }) => sum + ratio, 0);
  for (const item of items) {
    rest -= item.ratio;
    if (rest < 0) return item;
  }
  return items[0] as T;
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
