/**
 * Before it learns to speak, the trained part learns to tell pictures apart by their captions: image-text contrastive
 * learning (BLIP-2, arXiv 2301.12597, section 3.1; CLIP, arXiv 2103.00020), here directly in the space of the language
 * model's words (`contrastive-head.ts`). The language model is not run, so a step costs little, and its image tokens begin
 * where its words lie.
 */
import {
  constantTexts,
  headNames,
  meanRow,
  pictureEmbedding,
  textArrays,
  textEmbedding,
  textInputs,
} from "../../models/contrastive-head.ts";
import { efficientNetLogits, efficientNetWidth } from "../../models/efficientnet.ts";
import type { LlamaConfig } from "../../models/llama.ts";
import { imageTokens, type MiniGPT4Config, type MiniGPT4Weights } from "../../models/minigpt4.ts";
import type { NamedArrays } from "../../models/qformer-initial.ts";
import { crossEntropy } from "../../nn/cross-entropy.ts";
import type { Weights } from "../../nn/weights.ts";
import { type NdArray, ndarray } from "../../tensor/array.ts";
import { clip, exp, neg } from "../../tensor/elementwise.ts";
import type { Value } from "../../tensor/graph.ts";
import { reshape, transpose } from "../../tensor/layout.ts";
import { matmul } from "../../tensor/matrix.ts";
import { logSoftmax, reduceMean, reduceSum } from "../../tensor/reduce.ts";
import type { LossOptions } from "./loss.ts";

/** As in BLIP-2. */
const labelSmoothing = 0.1;
const initialTemperature = 0.07;
/** Similarities are multiplied by at most this. */
const largestScale = 50;

/** What the encoder's own classifier teaches: its classes have names, and a picture should lie near the names it gives. */
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
    // Where Q-Former and projection are trained, they learn by themselves what pictures should have in common.
    ...(isKept && { [headNames.pictureShift]: ndarray("float32", [hiddenSize], new Float32Array(hiddenSize)) }),
    log_scale: scale(),
    ...(isTaught && { class_log_scale: scale() }),
  };
}

/**
 * The loss of a batch of pictures and captions that belong together pairwise; all other pairs are negatives.
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
  const pictures = pictureEmbedding(added, imageTokens(w, features, config, how));
  const captions = textEmbedding(added, w.llm, textInputs(added, "images"), config.llm);
  const similarity = matmul(pictures, captions, { transB: true }).mul(scaleOf(added, "log_scale"));
  const paired = smoothedLoss(similarity, own)
    .add(smoothedLoss(transpose(similarity, [1, 0]), own))
    .mul(0.5);
  return teacher ? paired.add(taughtLoss(added, w.llm, pictures, config, teacher)) : paired;
}

function scaleOf(w: Weights, name: string): Value {
  return clip(exp(w.get(name, [1])), 1, largestScale);
}

/**
 * Distillation (Hinton et al., arXiv 1503.02531): cross-entropy between the classes that the classifier sees in a picture,
 * and the classes whose names lie near the picture's image tokens. pictures [images, hiddenSize], of length 1.
 */
function taughtLoss(
  w: Weights,
  llm: Weights,
  pictures: Value,
  config: MiniGPT4Config,
  { encoder, names }: Teacher,
): Value {
  const classes = textEmbedding(w, llm, constantTexts(w, names), config.llm);
  const seen = w.graph.input("pooledFeatures", "float32", ["images", 1, efficientNetWidth]);
  const taught = exp(logSoftmax(efficientNetLogits(encoder, seen)));
  const found = logSoftmax(matmul(pictures, classes, { transB: true }).mul(scaleOf(w, "class_log_scale")));
  return neg(reshape(reduceMean(reduceSum(taught.mul(found), [1]), [0, 1]), []));
}

/** The mean over rows of the cross-entropy of each row's own column. */
function smoothedLoss(scores: Value, own: Value): Value {
  return reduceMean(crossEntropy(scores, own, labelSmoothing), [0, 1], { keep: false });
}

/** Feeds of the captions, each of which belongs to the picture at its own place. */
export function captionArrays(captions: readonly (readonly number[])[]): Record<string, NdArray> {
  const own = BigInt64Array.from(captions, (_, i) => BigInt(i));
  return { ...textArrays(captions), own: ndarray("int64", [captions.length, 1], own) };
}
