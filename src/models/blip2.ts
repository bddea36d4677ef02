/**
 * What BLIP-2 (Li et al., arXiv 2301.12597, section 3.1) puts on its Q-Former to learn what images and texts have in common:
 * two projections into one space, a head that tells whether an image and a text belong together, and BERT's word scores.
 * Names of the weights are those of the released first-stage checkpoint.
 */
import { l2Normalize, layerNorm, linear } from "../nn/layers.ts";
import type { Weights } from "../nn/weights.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import { gelu } from "../tensor/ops/elementwise.ts";
import { gather } from "../tensor/ops/gather.ts";
import { concat, expand, reshape, slice } from "../tensor/ops/layout.ts";
import { matmul } from "../tensor/ops/matmul.ts";
import { reduceMax, reduceMean } from "../tensor/ops/reduce.ts";
import { type Dim, mulDims } from "../tensor/shapes.ts";
import type { EncoderConfig } from "./minigpt4.ts";
import { type QFormerConfig, type QFormerText, type QueryPass, qformerTextAfter, type Regularizer } from "./qformer.ts";

export interface Blip2Config {
  readonly encoder: EncoderConfig;
  /** With a text side: `vocabSize` and `maxPositionEmbeddings` are given. */
  readonly qformer: QFormerConfig;
  /** Size of the space in which images and texts are compared. */
  readonly embedDim: number;
}

/** The queries' output [images, numQueryTokens, hiddenSize] -> [images, numQueryTokens, embedDim], of length 1 each. */
export function imageEmbeddings(w: Weights, queries: Value, { embedDim }: Pick<Blip2Config, "embedDim">): Value {
  return l2Normalize(linear(w.at("vision_proj"), queries, embedDim));
}

/** The output of a text alone [texts, length, hiddenSize] -> [texts, embedDim], of length 1: its [CLS] token speaks for it. */
export function captionEmbedding(w: Weights, words: Value, { embedDim }: Pick<Blip2Config, "embedDim">): Value {
  const first = reshape(slice(words, 1, 0, 1), [words.dim(0), words.dim(2)]);
  return l2Normalize(linear(w.at("text_proj"), first, embedDim));
}

/**
 * How near images are to texts: the largest of the queries' cosine similarities.
 * images [images, numQueryTokens, embedDim], captions [texts, embedDim] -> [images, texts]
 */
export function similarities(images: Value, captions: Value): Value {
  const [count, queries, size] = images.shape as [Dim, Dim, Dim];
  const rows = matmul(reshape(images, [mulDims(count, queries), size]), captions, { transB: true });
  return reduceMax(reshape(rows, [count, queries, captions.dim(0)]), [1], { keep: false });
}

/** Queries that saw a text, [pairs, numQueryTokens + length, hiddenSize] -> logits [pairs, 2]: apart, together. */
export function matchLogits(w: Weights, joint: Value, { numQueryTokens }: QFormerConfig): Value {
  const scores = linear(w.at("itm_head"), slice(joint, 1, 0, numQueryTokens), 2);
  return reduceMean(scores, [1], { keep: false });
}

/** Text that is generated from the queries, which have looked at its image. */
export interface GeneratedText extends QFormerText {
  /** The token that takes the place of [CLS] and begins the text. */
  readonly decId: number;
  /** Places in [texts * length] whose next token is foretold, int64 [targets]. */
  readonly targetPlaces: Value;
}

/** Logits of the tokens that follow the target places, each from the queries and the tokens up to it: [targets, vocabSize]. */
export function generationLogits(
  w: Weights,
  queries: QueryPass,
  { decId, targetPlaces, ...text }: GeneratedText,
  config: QFormerConfig,
  regularize?: Regularizer,
): Value {
  const { graph } = w;
  const [texts, length] = text.ids.shape as [Dim, Dim];
  const start = expand(graph.scalar(decId, "int64"), [texts, 1]);
  const ids = reshape(concat([start, slice(text.ids, 1, 1)], 1), text.ids.shape);
  const words = qformerTextAfter(w, queries, { ...text, ids }, config, regularize);
  const rows = reshape(words, [mulDims(texts, length), config.hiddenSize]);
  return wordLogits(w, gather(rows, targetPlaces), config);
}

/** BERT's head, whose last matrix is the table of word embeddings: rows [n, hiddenSize] -> logits [n, vocabSize]. */
function wordLogits(w: Weights, rows: Value, { hiddenSize, vocabSize = 0, layerNormEps }: QFormerConfig): Value {
  const predictions = w.at("Qformer.cls.predictions");
  const transform = predictions.at("transform");
  const hidden = gelu(linear(transform.at("dense"), rows, hiddenSize));
  const table = w.at("Qformer.bert.embeddings.word_embeddings").get("weight", [vocabSize, hiddenSize]);
  const normal = layerNorm(transform.at("LayerNorm"), hidden, layerNormEps);
  return matmul(normal, table, { transB: true }).add(predictions.get("bias", [vocabSize]));
}

// Texts of different lengths as the inputs of a Q-Former's text side.

/** Feeds of `QFormerText`: token ids and mask, int64 [texts, length]; shorter texts are filled up with [PAD]. */
export function textArrays(
  texts: readonly (readonly number[])[],
  padId: number,
): Record<"textIds" | "textMask", NdArray<"int64">> {
  const length = Math.max(...texts.map((ids) => ids.length));
  const shape = [texts.length, length];
  const ids = new BigInt64Array(texts.length * length).fill(BigInt(padId));
  const mask = new BigInt64Array(ids.length);
  texts.forEach((text, row) => {
    text.forEach((id, i) => {
      ids[row * length + i] = BigInt(id);
      mask[row * length + i] = 1n;
    });
  });
  return { textIds: ndarray("int64", shape, ids), textMask: ndarray("int64", shape, mask) };
}

/**
 * What is foretold where texts are generated: each token but the first, from the place before it; texts in their order.
 * Places are those of the flattened [texts * length]; both int64 [targets].
 */
export function generationTargets(
  texts: readonly (readonly number[])[],
  length: number,
): { readonly targetPlaces: NdArray<"int64">; readonly targetIds: NdArray<"int64"> } {
  const targets = texts.flatMap((ids, row) => ids.slice(1).map((id, i) => ({ place: row * length + i, id })));
  const column = (value: (target: { readonly place: number; readonly id: number }) => number) =>
    ndarray(
      "int64",
      [targets.length],
      BigInt64Array.from(targets, (target) => BigInt(value(target))),
    );
  return { targetPlaces: column(({ place }) => place), targetIds: column(({ id }) => id) };
}
