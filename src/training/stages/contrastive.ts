/**
 * Before it learns to speak, the trained part learns to tell pictures apart by their captions: image-text contrastive
 * learning (BLIP-2, arXiv 2301.12597, section 3.1; CLIP, arXiv 2103.00020), here directly in the space of the language
 * model's words. A picture is the mean of its image tokens; a caption is the mean of its words' frozen embeddings, each
 * weighted by how telling it is. The language model is not run, so a step costs little, and its image tokens begin where
 * its words lie.
 */
import { efficientNetLogits, efficientNetWidth } from "../../models/efficientnet.ts";
import { imageTokens, type MiniGPT4Config, type MiniGPT4Weights } from "../../models/minigpt4.ts";
import type { NamedArrays } from "../../models/qformer-initial.ts";
import type { Weights } from "../../nn/weights.ts";
import { bytesOf, type NdArray, ndarray } from "../../tensor/array.ts";
import { clip, exp, neg, relu, sqrt } from "../../tensor/elementwise.ts";
import type { Value } from "../../tensor/graph.ts";
import { reshape, transpose } from "../../tensor/layout.ts";
import { gather, gatherElements } from "../../tensor/lookup.ts";
import { matmul } from "../../tensor/matrix.ts";
import { logSoftmax, reduceMean, reduceSum } from "../../tensor/reduce.ts";
import type { LossOptions } from "./loss.ts";

/** As in BLIP-2. */
const labelSmoothing = 0.1;
const initialTemperature = 0.07;
/** Similarities are multiplied by at most this. */
const largestScale = 50;

/** Frozen embeddings of the words, centred and of length 1. */
export interface WordTable {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly values: Float32Array;
}

/** Takes the mean of all rows from each row of [vocabSize, hiddenSize], and scales it to length 1. */
export function centreWords(table: Float32Array, vocabSize: number, hiddenSize: number): WordTable {
  const mean = new Float64Array(hiddenSize);
  for (let i = 0; i < table.length; i++) {
    const column = i % hiddenSize;
    mean[column] = (mean[column] as number) + (table[i] as number) / vocabSize;
  }
  const values = new Float32Array(table.length);
  for (let start = 0; start < table.length; start += hiddenSize) {
    let squares = 0;
    for (let column = 0; column < hiddenSize; column++) {
      const value = (table[start + column] as number) - (mean[column] as number);
      values[start + column] = value;
      squares += value * value;
    }
    const length = Math.sqrt(squares) || 1;
    for (let i = start; i < start + hiddenSize; i++) values[i] = (values[i] as number) / length;
  }
  return { vocabSize, hiddenSize, values };
}

/** What the encoder's own classifier teaches: its classes have names, and a picture should lie near the names it gives. */
export interface Teacher {
  /** The frozen encoder, with its classifier. */
  readonly encoder: Weights;
  /** Token ids of the name of each class, in the classifier's order. */
  readonly names: readonly (readonly number[])[];
}

/** What this stage trains beside the model: each word's weight, at first the logarithm of how rare it is, and the scale; one more with a teacher. */
export function initialContrastive(
  captions: readonly (readonly number[])[],
  { vocabSize }: WordTable,
  isTaught: boolean,
): NamedArrays {
  const found = new Float32Array(vocabSize);
  for (const ids of captions) for (const id of new Set(ids)) found[id] = (found[id] as number) + 1;
  const weights = found.map((count) => Math.log(captions.length / (1 + count)) / 8);
  return {
    "word_weight.weight": ndarray("float32", [vocabSize, 1], weights),
    log_scale: ndarray("float32", [1], Float32Array.of(Math.log(1 / initialTemperature))),
    ...(isTaught && { class_log_scale: ndarray("float32", [1], Float32Array.of(Math.log(1 / initialTemperature))) }),
  };
}

/**
 * The loss of a batch of pictures and captions that belong together pairwise; all other pairs are negatives.
 *
 * @param added the weights of `initialContrastive`
 * @param features [images, ...frozenShape]
 */
export function contrastiveLoss(
  w: Omit<MiniGPT4Weights, "llm">,
  added: Weights,
  words: WordTable,
  features: Value,
  config: MiniGPT4Config,
  { teacher, ...how }: LossOptions & { readonly teacher?: Teacher } = {},
): Value {
  const { graph } = added;
  const ids = graph.input("captionIds", "int64", ["images", "words"]);
  const mask = graph.input("captionMask", "float32", ["images", "words", 1]);
  const own = graph.input("own", "int64", ["images", 1]);
  const pictures = normalize(reduceMean(imageTokens(w, features, config, how), [1], { keep: false }));
  const captions = normalize(meanOfWords(added, words, ids, mask));
  const similarity = matmul(pictures, captions, { transB: true }).mul(scaleOf(added, "log_scale"));
  const paired = smoothedLoss(similarity, own)
    .add(smoothedLoss(transpose(similarity, [1, 0]), own))
    .mul(0.5);
  return teacher ? paired.add(taughtLoss(added, words, pictures, teacher)) : paired;
}

function scaleOf(w: Weights, name: string): Value {
  return clip(exp(w.get(name, [1])), 1, largestScale);
}

/**
 * Distillation (Hinton et al., arXiv 1503.02531): cross-entropy between the classes that the classifier sees in a picture,
 * and the classes whose names lie near the picture's image tokens. pictures [images, hiddenSize], of length 1.
 */
function taughtLoss(w: Weights, words: WordTable, pictures: Value, { encoder, names }: Teacher): Value {
  const { graph } = w;
  const { captionIds, captionMask } = captionArrays(names);
  const classes = normalize(meanOfWords(w, words, graph.constant(captionIds), graph.constant(captionMask)));
  const seen = graph.input("pooledFeatures", "float32", ["images", 1, efficientNetWidth]);
  const taught = exp(logSoftmax(efficientNetLogits(encoder, seen)));
  const found = logSoftmax(matmul(pictures, classes, { transB: true }).mul(scaleOf(w, "class_log_scale")));
  return neg(reshape(reduceMean(reduceSum(taught.mul(found), [1]), [0, 1]), []));
}

/** The weighted sum of each caption's words, [images, hiddenSize]; its length does not matter. */
function meanOfWords(w: Weights, { vocabSize, hiddenSize, values }: WordTable, ids: Value, mask: Value): Value {
  const table = w.graph.weight("words", "float32", [vocabSize, hiddenSize], () => bytesOf(values));
  const weights = relu(gather(w.get("word_weight.weight", [vocabSize, 1]), ids)).mul(mask);
  return reduceSum(gather(table, ids).mul(weights), [1], { keep: false });
}

function normalize(x: Value): Value {
  return x.div(sqrt(reduceSum(x.mul(x), [1]).add(1e-12)));
}

/** Cross-entropy of each row's own column, with a share of the target spread over all columns. */
function smoothedLoss(scores: Value, own: Value): Value {
  const logProbabilities = logSoftmax(scores);
  const hit = gatherElements(logProbabilities, own);
  const spread = reduceMean(logProbabilities, [1]);
  const loss = hit.mul(1 - labelSmoothing).add(spread.mul(labelSmoothing));
  return neg(reshape(reduceMean(loss, [0, 1]), []));
}

/** Feeds of the captions: filled up on the right, where the mask is 0. */
export function captionArrays(
  captions: readonly (readonly number[])[],
): Record<"captionIds" | "captionMask" | "own", NdArray> {
  const length = Math.max(...captions.map((ids) => ids.length));
  const ids = new BigInt64Array(captions.length * length);
  const mask = new Float32Array(captions.length * length);
  captions.forEach((caption, row) => {
    caption.forEach((id, i) => {
      ids[row * length + i] = BigInt(id);
      mask[row * length + i] = 1;
    });
  });
  return {
    captionIds: ndarray("int64", [captions.length, length], ids),
    captionMask: ndarray("float32", [captions.length, length, 1], mask),
    own: ndarray(
      "int64",
      [captions.length, 1],
      BigInt64Array.from(captions, (_, i) => BigInt(i)),
    ),
  };
}
