/**
 * A stage without the language model: Q-Former and projection learn to tell images apart before they learn to speak. Where
 * the recipe trains the contrastive head instead, that is all that is learned.
 */

import type { ImageTextPair } from "../../data/dataset.ts";
import {
  constantTexts,
  headNames,
  imageEmbedding,
  meanRow,
  textArrays,
  textEmbedding,
  textInputs,
} from "../../models/contrastive-head.ts";
import { efficientNetClasses, efficientNetLogits, efficientNetWidth } from "../../models/efficientnet.ts";
import type { LlamaConfig } from "../../models/llama.ts";
import { frozenShape, imageTokens, type MiniGPT4Config, type MiniGPT4Weights } from "../../models/minigpt4.ts";
import type { NamedArrays } from "../../models/qformer-init.ts";
import { crossEntropy } from "../../nn/layers.ts";
import { Weights } from "../../nn/weights.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import { clip, exp, neg } from "../../tensor/ops/elementwise.ts";
import { reshape, transpose } from "../../tensor/ops/layout.ts";
import { matmul } from "../../tensor/ops/matmul.ts";
import { logSoftmax, reduceMean, reduceSum } from "../../tensor/ops/reduce.ts";
import type { Random } from "../../tensor/random.ts";
import { overlayWeights, type WeightSource, weightsInMemory } from "../../tensor/weight-source.ts";
import type { ModelParts } from "../parts.ts";
import type { MiniGPT4Recipe } from "../recipe.ts";
import type { LossOptions } from "./caption-loss.ts";
import { type ComposedBatch, Dropout, dropFeatures, type Stage, type StageSample } from "./stage.ts";
import type { TextsOf } from "./texts.ts";

// * Before it learns to speak, the trained part learns to tell images apart by their captions: image-text contrastive
// learning (BLIP-2, arXiv 2301.12597, section 3.1; CLIP, arXiv 2103.00020), here directly in the space of the language
// model's words (`contrastive-head.ts`). The language model is not run, so a step costs little, and its image tokens begin
// where its words lie.

/** As in BLIP-2. */
const labelSmoothing = 0.1;
const initialTemperature = 0.07;
/** Similarities are multiplied by at most this. */
const largestScale = 50;

/** What the encoder's own classifier teaches: its classes have names, and an image should lie near the names it gives. */
export interface Teacher {
  /** The frozen encoder, with its classifier. */
  readonly encoder: Weights;
  /** Token ids of the name of each class, in the classifier's order. */
  readonly names: readonly (readonly number[])[];
}

/**
 * The weights of the head as the stage begins: each word's weight, at first the logarithm of how rare it is, and the mean of
 * the word embeddings; with them the scale of the similarities, and one more with a teacher.
 *
 * @param captions token ids of all that is trained on
 * @param table embeddings of the language model's words, [vocabSize, hiddenSize]
 */
export function initialContrastive(
  captions: readonly (readonly number[])[],
  table: Float32Array,
  { vocabSize, hiddenSize }: Pick<LlamaConfig, "vocabSize" | "hiddenSize">,
  { isTaught = false, isKept = false }: { readonly isTaught?: boolean; readonly isKept?: boolean } = {},
): NamedArrays {
  const found = new Float32Array(vocabSize);
  for (const ids of captions) for (const id of new Set(ids)) found[id] = (found[id] as number) + 1;
  const weights = found.map((count) => Math.log(captions.length / (1 + count)) / 8);
  const scale = () => ndarray("float32", [1], Float32Array.of(Math.log(1 / initialTemperature)));
  return {
    [headNames.wordWeight]: ndarray("float32", [vocabSize, 1], weights),
    [headNames.wordMean]: ndarray("float32", [hiddenSize], meanRow(table, hiddenSize)),
    // Where Q-Former and projection are trained, they learn by themselves what images should have in common.
    ...(isKept && { [headNames.imageShift]: ndarray("float32", [hiddenSize], new Float32Array(hiddenSize)) }),
    log_scale: scale(),
    ...(isTaught && { class_log_scale: scale() }),
  };
}

/**
 * The loss of a batch of images and captions that belong together pairwise; all other pairs are negatives.
 *
 * @param added the weights of `initialContrastive`
 * @param features [images, ...frozenShape]
 */
export function contrastiveLoss(
  w: MiniGPT4Weights,
  added: Weights,
  features: Value,
  config: MiniGPT4Config,
  { teacher, ...how }: LossOptions & { readonly teacher?: Teacher } = {},
): Value {
  const { graph } = added;
  const own = graph.input("own", "int64", ["images", 1]);
  const images = imageEmbedding(added, imageTokens(w, features, config, how));
  const captions = textEmbedding(added, w.llm, textInputs(added, "images"), config.llm);
  const similarity = matmul(images, captions, { transB: true }).mul(scaleOf(added, "log_scale"));
  const paired = smoothedLoss(similarity, own)
    .add(smoothedLoss(transpose(similarity, [1, 0]), own))
    .mul(0.5);
  return teacher ? paired.add(taughtLoss(added, w.llm, images, config, teacher)) : paired;
}

function scaleOf(w: Weights, name: string): Value {
  return clip(exp(w.get(name, [1])), 1, largestScale);
}

/**
 * Distillation (Hinton et al., arXiv 1503.02531): cross-entropy between the classes that the classifier sees in an image,
 * and the classes whose names lie near the image's image tokens. images [images, hiddenSize], of length 1.
 */
function taughtLoss(
  w: Weights,
  llm: Weights,
  images: Value,
  config: MiniGPT4Config,
  { encoder, names }: Teacher,
): Value {
  const classes = textEmbedding(w, llm, constantTexts(w, names), config.llm);
  const seen = w.graph.input("pooledFeatures", "float32", ["images", 1, efficientNetWidth]);
  const taught = exp(logSoftmax(efficientNetLogits(encoder, seen)));
  const found = logSoftmax(matmul(images, classes, { transB: true }).mul(scaleOf(w, "class_log_scale")));
  return neg(reshape(reduceMean(reduceSum(taught.mul(found), [1]), [0, 1]), []));
}

/** The mean over rows of the cross-entropy of each row's own column. */
function smoothedLoss(scores: Value, own: Value): Value {
  return reduceMean(crossEntropy(scores, own, labelSmoothing), [0, 1], { keep: false });
}

/** Feeds of the captions, each of which belongs to the image at its own place. */
export function captionArrays(captions: readonly (readonly number[])[]): Record<string, NdArray> {
  const own = BigInt64Array.from(captions, (_, i) => BigInt(i));
  return { ...textArrays(captions), own: ndarray("int64", [captions.length, 1], own) };
}

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
  const source = overlayWeights([added, image]);
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

/** The first text of each image of the data set, images by name: the names of the encoder's classes. */
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
      `run.contrastive.class_names: data set ${wanted} has ${set.length} images to train on, but the encoder's classifier ` +
        `knows ${efficientNetClasses} classes; give one image for each, named so that they sort in the classifier's order`,
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
