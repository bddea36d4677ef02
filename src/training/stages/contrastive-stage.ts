/**
 * Image-text contrastive learning (BLIP-2, arXiv 2301.12597, section 3.1; CLIP, arXiv 2103.00020) before the captions,
 * directly in the space of the language model's word embeddings (`contrastive-head.ts`). The language model itself does not
 * run, so a step is cheap. A recipe may also train only the contrastive head, on the image tokens of a finished model.
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

/** As in BLIP-2. */
const labelSmoothing = 0.1;
const initialTemperature = 0.07;
/** Upper bound of the factor on similarities. */
const maxScale = 50;

/** The encoder's own classifier as a teacher: an image should lie near the names of the classes that it sees. */
export interface Teacher {
  /** The frozen encoder, with its classifier. */
  readonly encoder: Weights;
  /** Token ids of the name of each class, in the classifier's order. */
  readonly names: readonly (readonly number[])[];
}

/**
 * Initial weights of the stage: a weight for each token, from its inverse document frequency; the mean of the word
 * embeddings; the scale of the similarities, and another one for a teacher.
 *
 * @param captions token ids of all training texts
 * @param table word embeddings of the language model, [vocabSize, hiddenSize]
 */
export function initialContrastive(
  captions: readonly (readonly number[])[],
  table: Float32Array,
  { vocabSize, hiddenSize }: Pick<LlamaConfig, "vocabSize" | "hiddenSize">,
  { hasTeacher = false, hasHead = false }: { readonly hasTeacher?: boolean; readonly hasHead?: boolean } = {},
): NamedArrays {
  const found = new Float32Array(vocabSize);
  for (const ids of captions) for (const id of new Set(ids)) found[id] = (found[id] as number) + 1;
  const weights = found.map((count) => Math.log(captions.length / (1 + count)) / 8);
  const scale = () => ndarray("float32", [1], Float32Array.of(Math.log(1 / initialTemperature)));
  return {
    [headNames.wordWeight]: ndarray("float32", [vocabSize, 1], weights),
    [headNames.wordMean]: ndarray("float32", [hiddenSize], meanRow(table, hiddenSize)),
    // Only where Q-Former and projection are frozen; otherwise they learn the shift themselves.
    ...(hasHead && { [headNames.imageShift]: ndarray("float32", [hiddenSize], new Float32Array(hiddenSize)) }),
    log_scale: scale(),
    ...(hasTeacher && { class_log_scale: scale() }),
  };
}

/**
 * The contrastive loss of a batch of images with their captions; all other pairs are negatives.
 *
 * @param added weights of `initialContrastive`
 * @param features [images, ...frozenShape]
 */
export function contrastiveLoss(
  w: MiniGPT4Weights,
  added: Weights,
  features: Value,
  config: MiniGPT4Config,
  { teacher, ...options }: LossOptions & { readonly teacher?: Teacher } = {},
): Value {
  const { graph } = added;
  const own = graph.input("own", "int64", ["images", 1]);
  const images = imageEmbedding(added, imageTokens(w, features, config, options));
  const captions = textEmbedding(added, w.llm, textInputs(added, "images"), config.llm);
  const similarity = matmul(images, captions, { transB: true }).mul(scaleOf(added, "log_scale"));
  const paired = smoothedLoss(similarity, own)
    .add(smoothedLoss(transpose(similarity, [1, 0]), own))
    .mul(0.5);
  return teacher ? paired.add(distillationLoss(added, w.llm, images, config, teacher)) : paired;
}

function scaleOf(w: Weights, name: string): Value {
  return clip(exp(w.get(name, [1])), 1, maxScale);
}

/**
 * Distillation (Hinton et al., arXiv 1503.02531): cross-entropy between the class probabilities of the encoder's classifier
 * and those from the similarity of an image to the class names. images [images, hiddenSize], L2-normalised.
 */
function distillationLoss(
  w: Weights,
  llm: Weights,
  images: Value,
  config: MiniGPT4Config,
  { encoder, names }: Teacher,
): Value {
  const classes = textEmbedding(w, llm, constantTexts(w, names), config.llm);
  const pooled = w.graph.input("pooledFeatures", "float32", ["images", 1, efficientNetWidth]);
  const teacher = exp(logSoftmax(efficientNetLogits(encoder, pooled)));
  const student = logSoftmax(matmul(images, classes, { transB: true }).mul(scaleOf(w, "class_log_scale")));
  return neg(reshape(reduceMean(reduceSum(teacher.mul(student), [1]), [0, 1]), []));
}

/** The mean over rows of the cross-entropy with each row's own column. */
function smoothedLoss(logits: Value, own: Value): Value {
  return reduceMean(crossEntropy(logits, own, labelSmoothing), [0, 1], { keep: false });
}

/** Inputs for captions, each of the image with the same index. */
export function captionArrays(captions: readonly (readonly number[])[]): Record<string, NdArray> {
  const own = BigInt64Array.from(captions, (_, i) => BigInt(i));
  return { ...textArrays(captions), own: ndarray("int64", [captions.length, 1], own) };
}

export interface ContrastiveStageOptions {
  readonly recipe: MiniGPT4Recipe;
  readonly parts: ModelParts;
  readonly textsOf: TextsOf;
  /** All training pairs, for each dataset of the recipe. */
  readonly pairs: readonly (readonly ImageTextPair[])[];
}

export interface ContrastiveStage {
  readonly stage: Stage;
  /** Initial values of all weights, the stage's own included. */
  readonly source: WeightSource;
  /** Weights of the contrastive head that are not trained. */
  readonly fixed: NamedArrays;
}

export async function contrastiveStage({
  recipe,
  parts,
  textsOf,
  pairs,
}: ContrastiveStageOptions): Promise<ContrastiveStage> {
  const { config, llm, image, frozen, isTrained } = parts;
  const { run } = recipe;
  const { tokenizer } = llm;
  const tokenize = (sample: StageSample) => textsOf(sample).map((text) => tokenizer.encode(text));
  const captions = pairs.flatMap((set, dataset) => set.flatMap((pair) => tokenize({ pair, dataset })));
  const table = await llm.checkpoint.readFloat32("model.embed_tokens.weight");
  const classes = classNames(recipe, parts, { pairs, tokenize });
  const initial = initialContrastive(captions, table, llm.config, {
    hasTeacher: classes.length > 0,
    hasHead: recipe.model.trained.includes("contrastive_head"),
  });
  const { [headNames.wordMean]: wordMean, ...own } = initial;
  const source = overlayWeights([weightsInMemory("new weights", initial), image]);
  const graph = new Graph();
  const weights = new Weights(graph, source, { trainable: (name) => isTrained(name) || name in own });
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
      teacher: classes.length > 0 ? { encoder: weights, names: classes } : undefined,
    },
  );

  function compose(samples: readonly StageSample[], random: Random): ComposedBatch {
    const chosen = samples.map((sample) => {
      const texts = tokenize(sample);
      return texts[random.below(texts.length)] ?? [];
    });
    const tokens = chosen.reduce((sum, ids) => sum + ids.length, 0);
    return {
      targets: samples.length,
      tokens,
      paddedTokens: tokens,
      feeds(features) {
        // The teacher classifies features without dropout.
        const pooled = classes.length > 0 && { pooledFeatures: pool(features) };
        dropFeatures(features.data, run.feature_dropout, random);
        return {
          ...captionArrays(chosen),
          ...pooled,
          ...dropout.feeds({ images: samples.length }, random),
          features,
        };
      },
    };
  }
  return {
    source,
    fixed: wordMean ? { [headNames.wordMean]: wordMean } : {},
    stage: { name: "contrastive", graph, loss, trained: weights.trained, compose },
  };
}

/** The tokens of the encoder's class names: the first text of each image of a dataset, sorted by name. */
function classNames(
  { datasets, run }: MiniGPT4Recipe,
  { config }: ModelParts,
  {
    pairs,
    tokenize,
  }: Pick<ContrastiveStageOptions, "pairs"> & {
    readonly tokenize: (sample: StageSample) => readonly (readonly number[])[];
  },
): (readonly number[])[] {
  const name = run.contrastive?.class_names;
  if (name === undefined) return [];
  if (config.encoder.type !== "efficientnet_lite0") {
    throw new Error(
      `run.contrastive.class_names: the encoder ${config.encoder.type} has no classifier. Remove the key`,
    );
  }
  const names = Object.keys(datasets);
  const dataset = names.indexOf(name);
  const set = pairs[dataset];
  if (!set) {
    throw new Error(`run.contrastive.class_names: no dataset is named ${name}. The recipe has ${names.join(", ")}`);
  }
  if (set.length !== efficientNetClasses) {
    throw new Error(
      `run.contrastive.class_names: dataset ${name} has ${set.length} training images, but the encoder's classifier ` +
        `has ${efficientNetClasses} classes. Give one image per class, named so that they sort in the classifier's order`,
    );
  }
  const byName = set.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return byName.map((pair) => tokenize({ pair, dataset })[0] ?? []);
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
