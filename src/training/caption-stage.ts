/** The stage that MiniGPT-4 is about: captions through the frozen language model. */
import { join } from "node:path";
import type { SamplerState } from "../data/sampler.ts";
import { tokensPerImage } from "../models/minigpt4.ts";
import type { NamedArrays } from "../models/qformer-initial.ts";
import { Weights, weightsInMemory } from "../nn/weights.ts";
import { Graph } from "../tensor/graph.ts";
import { Random } from "../tensor/random.ts";
import { WeightAverage } from "./average.ts";
import { batchArrays, type Piece } from "./batch.ts";
import { Dropout } from "./dropout.ts";
import { captionLoss } from "./loss.ts";
import { choose, dropFeatures, namesOf, type Prepared, readFeatures, samplerOf, sessionOptions } from "./prepared.ts";
import { loadState, saveState } from "./save.ts";
import { promptPieces } from "./stages.ts";
import { initialState, optimizerOf, TrainingStep } from "./step.ts";
import { train } from "./trainer.ts";
import { Validation } from "./validation.ts";

/** Steps after which the state is saved. */
const saveEvery = 200;

/** @returns the weights to keep: those with the smallest held-out loss where one is watched, else the last average */
export async function captionStage(prepared: Prepared, begin: () => Promise<NamedArrays>): Promise<NamedArrays> {
  const { recipe, config, llm, options } = prepared;
  const { run, model } = recipe;
  const statePath = join(run.output_dir, "state.safetensors");
  const saved = options.resume ? await loadState(statePath) : undefined;
  const state = saved?.state ?? initialState(await begin());
  const place = saved?.place as { random: number[]; sampler: SamplerState } | undefined;
  const random = place ? Random.from(place.random) : prepared.random;
  const here = { ...prepared, random };
  const sampler = samplerOf(here, run.batch_size, place?.sampler);
  const graph = new Graph();
  const source = weightsInMemory("the weights in training", state.parameters);
  const trained = new Weights(graph, source, { trainable: () => true });
  const weights = { encoder: trained, qformer: trained, projection: trained, llm: new Weights(graph, llm.checkpoint) };
  const dropout = new Dropout(graph, run.qformer_dropout);
  const loss = captionLoss(weights, config, (x) => dropout.apply(x));
  const engine = sessionOptions(options);
  const step = await TrainingStep.create(graph, loss, trained.trained, state, optimizerOf(recipe), engine);
  const average = new WeightAverage(saved?.average ?? state.parameters, run.average_decay);
  const prompts = promptsOf(prepared);
  const validation = await createValidation(prepared, state.parameters, prompts[0]);
  const save = () =>
    saveState(statePath, step.state, average.arrays, { random: random.save(), sampler: sampler.save() });
  try {
    if (!saved) await save();
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
          options.onValidation?.(report.step, await validation.measure(average.arrays));
        }
      },
      ...(options.signal && { signal: options.signal }),
      nextBatch: async () => {
        const chosen = choose(here, sampler);
        const samples = chosen.map(({ example }, image) => {
          const { pieces, end } = pickByRatio(prompts, random);
          const captions = random.shuffle([...example.captions]).slice(0, run.answers_per_picture);
          const answers = captions.map((ids) => [...ids, ...end].slice(0, model.max_txt_len));
          return { image, prompt: pieces, answers };
        });
        const features = await readFeatures(here, chosen);
        dropFeatures(here, features);
        const arrays = batchArrays(samples, features, tokensPerImage(config));
        return { feeds: { ...arrays, ...dropout.feeds(chosen.length, random) }, names: namesOf(chosen) };
      },
    });
    await save();
    return validation?.bestWeights ?? average.arrays;
  } finally {
    await step.release();
    await validation?.release();
  }
}

/** What stands before an answer, in tokens. */
interface Prompt {
  readonly pieces: readonly Piece[];
  /** Ends the answer. */
  readonly end: readonly number[];
  readonly ratio: number;
}

function promptsOf({ recipe, llm }: Prepared): Prompt[] {
  return recipe.model.prompts.map(({ text, end_sym: end, sample_ratio: ratio }) => ({
    pieces: promptPieces(text, llm.tokenizer),
    end: llm.tokenizer.encode(end),
    ratio,
  }));
}

function pickByRatio<T extends { readonly ratio: number }>(items: readonly T[], random: Random): T {
  let rest = random.uniform() * items.reduce((sum, { ratio }) => sum + ratio, 0);
  for (const item of items) {
    rest -= item.ratio;
    if (rest < 0) return item;
  }
  return items[0] as T;
}

/** None where the recipe watches no pictures. */
async function createValidation(
  { recipe, config, llm, sets, validation, features, options }: Prepared,
  parameters: NamedArrays,
  prompt: Prompt | undefined,
): Promise<Validation | undefined> {
  if (validation.length === 0 || !prompt) return undefined;
  const { views } = recipe.run;
  const rows = { first: sets.flat().length * views, views };
  return Validation.create(validation, features, rows, prompt, parameters, { config, llm }, sessionOptions(options));
}
