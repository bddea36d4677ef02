/**
 * BLIP-2's first pre-training stage (arXiv 2301.12597, section 3.1) put together from the Q-Former's parts, on the
 * goldens' batch of images and texts with given negatives.
 */
import { indices } from "../../src/chat/reading-feeds.ts";
import { type QFormerConfig, qformer, qformerImageText, qformerText } from "../../src/models/qformer.ts";
import { linear } from "../../src/nn/linear.ts";
import { layerNorm } from "../../src/nn/norm.ts";
import type { Weights } from "../../src/nn/weights.ts";
import { gelu, neg, sqrt } from "../../src/tensor/elementwise.ts";
import type { Value } from "../../src/tensor/graph.ts";
import { reshape, slice, transpose } from "../../src/tensor/layout.ts";
import { gather, gatherElements } from "../../src/tensor/lookup.ts";
import { matmul } from "../../src/tensor/matrix.ts";
import { logSoftmax, reduceMax, reduceMean, reduceSum } from "../../src/tensor/reduce.ts";
import type { Goldens } from "./golden-set.ts";

export type PretrainingCase = Goldens["qformer_pretraining"];

const labelSmoothing = 0.1;

/** Image-text contrastive learning. images [n, cells, width] -> features, similarities and the loss. */
export function contrastive(w: Weights, images: Value, texts: PretrainingCase, config: QFormerConfig) {
  const { input_ids: ids, attention_mask: mask, embed_dim: size } = texts;
  const imageFeats = normalize(linear(w.at("vision_proj"), qformer(w, images, config), size));
  const words = qformerText(w, textOf(w, ids, mask), config);
  const first = reshape(slice(words, 1, 0, 1), [ids.length, config.hiddenSize]);
  const textFeats = normalize(linear(w.at("text_proj"), first, size));
  const queries = reshape(imageFeats, [ids.length * config.numQueryTokens, size]);
  const all = reshape(matmul(queries, textFeats, { transB: true }), [ids.length, config.numQueryTokens, ids.length]);
  const simI2t = reduceMax(all, [1], { keep: false }).div(w.get("temp", []));
  const simT2i = transpose(simI2t, [1, 0]);
  const own = ids.map((_, i) => i);
  const loss = crossEntropy(simI2t, own, labelSmoothing)
    .add(crossEntropy(simT2i, own, labelSmoothing))
    .mul(0.5);
  return { imageFeats, textFeats, simI2t, simT2i, loss };
}

/** Image-text matching: pairs that belong together, then texts with a wrong image, then images with a wrong text. */
export function matching(w: Weights, images: Value, texts: PretrainingCase, config: QFormerConfig) {
  const own = texts.input_ids.map((_, i) => i);
  const imageOf = [...own, ...texts.negative_image_of_text, ...own];
  const textOfPair = [...own, ...own, ...texts.negative_text_of_image];
  const pick = (rows: PretrainingCase["input_ids"]) => textOfPair.map((i) => rows[i] as readonly number[]);
  const chosen = gather(images, w.graph.constant(indices([imageOf.length], imageOf)));
  const text = textOf(w, pick(texts.input_ids), pick(texts.attention_mask));
  const joint = qformerImageText(w, chosen, text, config, "bidirectional");
  const scores = linear(w.at("itm_head"), slice(joint, 1, 0, config.numQueryTokens), 2);
  const logits = reduceMean(scores, [1], { keep: false });
  const labels = imageOf.map((_, i) => (i < own.length ? 1 : 0));
  return { logits, loss: crossEntropy(logits, labels, 0) };
}

/** Image-grounded text generation: the text after a start token, each token from the queries and the earlier ones. */
export function captioning(w: Weights, images: Value, texts: PretrainingCase, config: QFormerConfig) {
  const ids = texts.input_ids.map((row) => [texts.decoder_start_id, ...row.slice(1)]);
  const joint = qformerImageText(w, images, textOf(w, ids, texts.attention_mask), config, "causal");
  const length = ids[0]?.length ?? 0;
  const words = reshape(slice(joint, 1, config.numQueryTokens), [ids.length * length, config.hiddenSize]);
  const targets = ids.flatMap((row, i) =>
    row.flatMap((id, at) => (at > 0 && texts.attention_mask[i]?.[at] ? [{ place: i * length + at - 1, id }] : [])),
  );
  const places = targets.map(({ place }) => place);
  const predicting = gather(words, w.graph.constant(indices([places.length], places)));
  const logits = wordScores(w, predicting, config);
  return {
    logits,
    loss: crossEntropy(
      logits,
      targets.map(({ id }) => id),
      labelSmoothing,
    ),
  };
}

/** BERT's head: its last matrix is the table of word embeddings. */
function wordScores(w: Weights, rows: Value, { hiddenSize, vocabSize = 0, layerNormEps }: QFormerConfig): Value {
  const transform = w.at("Qformer.cls.predictions.transform");
  const hidden = layerNorm(
    transform.at("LayerNorm"),
    gelu(linear(transform.at("dense"), rows, hiddenSize)),
    layerNormEps,
  );
  const table = w.at("Qformer.bert.embeddings.word_embeddings").get("weight", [vocabSize, hiddenSize]);
  return matmul(hidden, table, { transB: true }).add(w.at("Qformer.cls.predictions").get("bias", [vocabSize]));
}

function textOf(w: Weights, ids: PretrainingCase["input_ids"], mask: PretrainingCase["attention_mask"]) {
  const shape = [ids.length, ids[0]?.length ?? 0];
  const constant = (rows: readonly (readonly number[])[]) => w.graph.constant(indices(shape, rows.flat()));
  return { ids: constant(ids), attentionMask: constant(mask) };
}

function normalize(x: Value): Value {
  return x.div(sqrt(reduceSum(x.mul(x), [-1])));
}

/** The mean over rows of scores [n, classes]; smoothing spreads a part of the target evenly over all classes. */
function crossEntropy(scores: Value, targets: readonly number[], smoothing: number): Value {
  const logs = logSoftmax(scores);
  const own = gatherElements(logs, scores.graph.constant(indices([targets.length, 1], targets)));
  const even = reduceMean(logs, [1]);
  const rows = own.mul(1 - smoothing).add(even.mul(smoothing));
  return neg(reduceMean(rows, [0, 1], { keep: false }));
}
