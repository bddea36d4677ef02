/** The first steps of a run: Q-Former and projection learn to tell pictures apart, without the language model. */
import { openCheckpoint } from "../checkpoints/checkpoint.ts";
import { efficientNetClasses } from "../models/efficientnet.ts";
import { featureShape } from "../models/minigpt4.ts";
import type { NamedArrays } from "../models/qformer-initial.ts";
import { Weights, weightsInMemory } from "../nn/weights.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { WeightAverage } from "./average.ts";
import { captionArrays, centreWords, contrastiveLoss, initialContrastive } from "./contrastive.ts";
import { Dropout } from "./dropout.ts";
import { choose, dropFeatures, namesOf, type Prepared, readFeatures, samplerOf, sessionOptions } from "./prepared.ts";
import type { Recipe } from "./recipe.ts";
import { initialState, optimizerOf, TrainingStep } from "./step.ts";
import { train } from "./trainer.ts";

type Settings = NonNullable<Recipe["run"]["contrastive"]>;

/** @returns the weights that the next stage begins with, of the names and shapes of `initial` */
export async function contrastiveStage(
  prepared: Prepared,
  settings: Settings,
  initial: NamedArrays,
): Promise<NamedArrays> {
  const { recipe, config, llm, sets, random, options } = prepared;
  const table = await llm.checkpoint.readFloat32("model.embed_tokens.weight");
  const words = centreWords(table, llm.config.vocabSize, llm.config.hiddenSize);
  const captions = sets.flat().flatMap((example) => example.captions);
  const names = settings.class_names === undefined ? [] : classNames(prepared, settings.class_names);
  const parameters = { ...initial, ...initialContrastive(captions, words, names.length > 0) };
  const graph = new Graph();
  const trained = new Weights(graph, weightsInMemory("the weights in training", parameters), { trainable: () => true });
  const features = graph.input("features", "float32", ["images", ...featureShape(config.encoder)]);
  const parts = { encoder: trained, qformer: trained, projection: trained };
  const dropout = new Dropout(graph, recipe.run.qformer_dropout);
  const encoder = await openCheckpoint(recipe.model.encoder_ckpt);
  const teacher = names.length > 0 && { teacher: { encoder: new Weights(graph, encoder), names } };
  const how = { regularize: (x: Value) => dropout.apply(x), ...teacher };
  const loss = contrastiveLoss(parts, trained, words, features, config, how);
  const state = initialState(parameters);
  const step = await TrainingStep.create(
    graph,
    loss,
    trained.trained,
    state,
    optimizerOf(recipe),
    sessionOptions(options),
  ).finally(() => encoder.close());
  const average = new WeightAverage(parameters, recipe.run.average_decay);
  const sampler = samplerOf(prepared, settings.batch_size);
  try {
    await train(step, {
      schedule: {
        initLr: settings.init_lr,
        minLr: settings.init_lr * 0.02,
        warmupLr: 0,
        warmupSteps: settings.warmup_steps,
        totalSteps: settings.steps,
      },
      average,
      onStep: (report) => options.onStep?.("contrastive", report),
      ...(options.signal && { signal: options.signal }),
      nextBatch: async () => {
        const chosen = choose(prepared, sampler);
        const arrays = captionArrays(
          chosen.map(({ example: { captions } }) => captions[random.below(captions.length)] ?? []),
        );
        const seen = await readFeatures(prepared, chosen);
        const pooled = names.length > 0 && { pooledFeatures: pool(seen) };
        dropFeatures(prepared, seen);
        const feeds = { ...arrays, ...pooled, ...dropout.feeds(chosen.length, random), features: seen };
        return { feeds, names: namesOf(chosen) };
      },
    });
  } finally {
    await step.release();
  }
  if (options.signal?.aborted) {
    options.onMessage?.("Stopped in the contrastive stage, of which nothing is kept; begin again without --resume.");
    options.signal.throwIfAborted();
  }
  return Object.fromEntries(Object.keys(initial).map((name) => [name, average.arrays[name] as NdArray<"float32">]));
}

/** The first text of each picture of the data set, pictures by name: the names of the encoder's classes. */
function classNames({ recipe, config, sets }: Prepared, dataset: string): (readonly number[])[] {
  if (config.encoder.type !== "efficientnet_lite0") {
    throw new Error(`run.contrastive.class_names: the encoder ${config.encoder.type} has no classifier; leave it out`);
  }
  const known = Object.keys(recipe.datasets);
  const set = sets[known.indexOf(dataset)];
  if (!set) {
    throw new Error(`run.contrastive.class_names: no data set is named ${dataset}; there are ${known.join(", ")}`);
  }
  if (set.length !== efficientNetClasses) {
    throw new Error(
      `run.contrastive.class_names: data set ${dataset} has ${set.length} pictures to train on, but the encoder's classifier ` +
        `knows ${efficientNetClasses} classes; give one picture for each, named so that they sort in the classifier's order`,
    );
  }
  return set.map(({ captions }) => captions[0] ?? []);
}

/** [images, cells, width] -> [images, 1, width]: the mean of the cells. */
function pool({ shape, data }: NdArray<"float32">): NdArray<"float32"> {
  const [images = 0, cells = 0, width = 0] = shape;
  const means = new Float32Array(images * width);
  for (let row = 0; row < images * cells; row++) {
    const to = Math.floor(row / cells) * width;
    for (let i = 0; i < width; i++) {
      means[to + i] = (means[to + i] as number) + (data[row * width + i] as number) / cells;
    }
  }
  return ndarray("float32", [images, 1, width], means);
}
