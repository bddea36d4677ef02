/**
 * A stage without the language model: Q-Former and projection learn to tell pictures apart before they learn to speak. Where
 * the recipe trains the contrastive head instead, that is all that is learned.
 */
import type { ImageTextPair } from "../../data/dataset.ts";
import { headNames } from "../../models/contrastive-head.ts";
import { efficientNetClasses } from "../../models/efficientnet.ts";
import { frozenShape } from "../../models/minigpt4.ts";
import type { NamedArrays } from "../../models/qformer-initial.ts";
import { layeredWeights } from "../../nn/layered-weights.ts";
import { type WeightSource, Weights, weightsInMemory } from "../../nn/weights.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import type { Random } from "../../tensor/random.ts";
import type { MiniGPT4Recipe } from "../minigpt4-recipe.ts";
import type { ModelParts } from "../parts.ts";
import { captionArrays, contrastiveLoss, initialContrastive } from "./contrastive.ts";
import { Dropout, dropFeatures } from "./dropout.ts";
import type { ComposedBatch, Stage, StageSample } from "./stage.ts";
import type { TextsOf } from "./texts.ts";

export interface ContrastiveStage {
  readonly stage: Stage;
  /** Weights of the trained parts, and those that the stage adds. */
  readonly source: WeightSource;
  /** Those of the contrastive head that are not trained. */
  readonly fixed: NamedArrays;
}

/** @param pairs all that is trained on, for each data set of the recipe */
export async function contrastiveStage(
  recipe: MiniGPT4Recipe,
  parts: ModelParts,
  textsOf: TextsOf,
  pairs: readonly (readonly ImageTextPair[])[],
): Promise<ContrastiveStage> {
  const { config, llm, image, frozen, isTrained } = parts;
  const { run } = recipe;
  const { tokenizer } = llm;
  const tokensOf = (sample: StageSample) => textsOf(sample).map((text) => tokenizer.encode(text));
  const captions = pairs.flatMap((set, dataset) => set.flatMap((pair) => tokensOf({ pair, dataset })));
  const table = await llm.checkpoint.readFloat32("model.embed_tokens.weight");
  const named = run.contrastive?.class_names;
  const names = named === undefined ? [] : classNames(recipe, parts, named, pairs, tokensOf);
  const isKept = recipe.model.trained.includes("contrastive_head");
  const initial = initialContrastive(captions, table, llm.config, { isTaught: names.length > 0, isKept });
  const { [headNames.wordMean]: mean, ...begun } = initial;
  const fixed = { ...(mean && { [headNames.wordMean]: mean }) };
  const added = weightsInMemory("new weights", initial);
  const source = layeredWeights([added, image]);
  const graph = new Graph();
  const trainable = (name: string) => isTrained(name) || name in begun;
  const weights = new Weights(graph, source, { trainable });
  const features = graph.input("features", "float32", ["images", ...frozenShape(config, frozen.depth)]);
  const dropout = new Dropout(graph, frozen.depth === "qformer" ? 0 : run.qformer_dropout);
  const loss = contrastiveLoss(
    { encoder: weights, qformer: weights, projection: weights, llm: new Weights(graph, llm.checkpoint) },
    weights,
    features,
    config,
    {
      depth: frozen.depth,
      regularize: (x: Value) => dropout.apply(x),
      ...(names.length > 0 && { teacher: { encoder: weights, names } }),
    },
  );

  function compose(samples: readonly StageSample[], random: Random): ComposedBatch {
    const chosen = samples.map((sample) => {
      const texts = tokensOf(sample);
      return texts[random.below(texts.length)] ?? [];
    });
    const tokens = chosen.reduce((sum, ids) => sum + ids.length, 0);
    return {
      targets: samples.length,
      tokens,
      places: tokens,
      feeds(seen) {
        const pooled = names.length > 0 && { pooledFeatures: pool(seen) };
        dropFeatures(seen.data, run.feature_dropout, random);
        return {
          ...captionArrays(chosen),
          ...pooled,
          ...dropout.feeds({ images: samples.length }, random),
          features: seen,
        };
      },
    };
  }
  return { source, fixed, stage: { name: "contrastive", graph, loss, trained: weights.trained, compose } };
}

/** The first text of each picture of the data set, pictures by name: the names of the encoder's classes. */
function classNames(
  { datasets }: MiniGPT4Recipe,
  { config }: ModelParts,
  wanted: string,
  pairs: readonly (readonly ImageTextPair[])[],
  tokensOf: (sample: StageSample) => readonly (readonly number[])[],
): (readonly number[])[] {
  if (config.encoder.type !== "efficientnet_lite0") {
    throw new Error(`run.contrastive.class_names: the encoder ${config.encoder.type} has no classifier; leave it out`);
  }
  const known = Object.keys(datasets);
  const dataset = known.indexOf(wanted);
  const set = pairs[dataset];
  if (!set) {
    throw new Error(`run.contrastive.class_names: no data set is named ${wanted}; there are ${known.join(", ")}`);
  }
  if (set.length !== efficientNetClasses) {
    throw new Error(
      `run.contrastive.class_names: data set ${wanted} has ${set.length} pictures to train on, but the encoder's classifier ` +
        `knows ${efficientNetClasses} classes; give one picture for each, named so that they sort in the classifier's order`,
    );
  }
  const byName = set.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return byName.map((pair) => tokensOf({ pair, dataset })[0] ?? []);
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
