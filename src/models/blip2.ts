/**
 * The heads of BLIP-2's first stage (Li et al., arXiv 2301.12597, section 3.1) on a Q-Former: projections of images and texts into a
 * shared space (contrastive learning), image-text matching, and BERT's language modeling head (image-grounded text generation).
 * Weight names are those of the released first-stage checkpoint.
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
  /** With a text side: `vocabSize` and `maxPositionEmbeddings` are set. */
  readonly qformer: QFormerConfig;
  /** Dimensions of the shared embedding space. */
  readonly embedDim: number;
}

/** The queries' output [images, numQueryTokens, hiddenSize] -> [images, numQueryTokens, embedDim], L2-normalized. */
export function imageEmbeddings(w: Weights, queries: Value, { embedDim }: Pick<Blip2Config, "embedDim">): Value {
  return l2Normalize(linear(w.at("vision_proj"), queries, embedDim));
}

/** The output of `qformerText` [texts, length, hiddenSize] -> [texts, embedDim], L2-normalized: the projected [CLS] token. */
export function captionEmbedding(w: Weights, words: Value, { embedDim }: Pick<Blip2Config, "embedDim">): Value {
  const first = reshape(slice(words, 1, 0, 1), [words.dim(0), words.dim(2)]);
  return l2Normalize(linear(w.at("text_proj"), first, embedDim));
}

/**
 * Similarities of images and texts: the maximum cosine similarity over the queries.
 * images [images, numQueryTokens, embedDim], captions [texts, embedDim] -> [images, texts]
 */
export function similarities(images: Value, captions: Value): Value {
  const [count, queries, size] = images.shape as [Dim, Dim, Dim];
  const rows = matmul(reshape(images, [mulDims(count, queries), size]), captions, { transB: true });
  return reduceMax(reshape(rows, [count, queries, captions.dim(0)]), [1], { keep: false });
}

/** The output of `qformerImageText` [pairs, numQueryTokens + length, hiddenSize] -> logits [pairs, 2]: no match, match. */
export function matchLogits(w: Weights, joint: Value, { numQueryTokens }: QFormerConfig): Value {
  const logits = linear(w.at("itm_head"), slice(joint, 1, 0, numQueryTokens), 2);
  return reduceMean(logits, [1], { keep: false });
}

/** Texts to generate from the queries of their images. */
export interface GeneratedText extends QFormerText {
  /** The [DEC] token, which replaces [CLS] at the start of the text. */
  readonly decId: number;
  /** Indices into [texts * length] of the positions whose next token is predicted, int64 [targets]. */
  readonly targetIndices: Value;
}

/** Logits of the next token at `targetIndices`, given the queries and the tokens so far: [targets, vocabSize]. */
export function generationLogits(
  w: Weights,
  queries: QueryPass,
  { decId, targetIndices, ...text }: GeneratedText,
  config: QFormerConfig,
  regularize?: Regularizer,
): Value {
  const { graph } = w;
  const [texts, length] = text.ids.shape as [Dim, Dim];
  const start = expand(graph.scalar(decId, "int64"), [texts, 1]);
  const ids = reshape(concat([start, slice(text.ids, 1, 1)], 1), text.ids.shape);
  const words = qformerTextAfter(w, queries, { ...text, ids }, config, regularize);
  const rows = reshape(words, [mulDims(texts, length), config.hiddenSize]);
  return wordLogits(w, gather(rows, targetIndices), config);
}

/** BERT's language modeling head, tied to the word embeddings: rows [n, hiddenSize] -> logits [n, vocabSize]. */
function wordLogits(w: Weights, rows: Value, { hiddenSize, vocabSize = 0, layerNormEps }: QFormerConfig): Value {
  const predictions = w.at("Qformer.cls.predictions");
  const transform = predictions.at("transform");
  const hidden = gelu(linear(transform.at("dense"), rows, hiddenSize));
  const table = w.at("Qformer.bert.embeddings.word_embeddings").get("weight", [vocabSize, hiddenSize]);
  const normal = layerNorm(transform.at("LayerNorm"), hidden, layerNormEps);
  return matmul(normal, table, { transB: true }).add(predictions.get("bias", [vocabSize]));
}

/** Feeds of `QFormerText`: token ids and attention mask, int64 [texts, length]. Shorter texts are padded. */
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
 * Targets of text generation: each token but the first is predicted from the position before it. `targetIndices` are indices into
 * [texts * length]; both are int64 [targets].
 */
export function generationTargets(
  texts: readonly (readonly number[])[],
  length: number,
): { readonly targetIndices: NdArray<"int64">; readonly targetIds: NdArray<"int64"> } {
  const targets = texts.flatMap((ids, row) => ids.slice(1).map((id, i) => ({ index: row * length + i, id })));
  const column = (value: (target: { readonly index: number; readonly id: number }) => number) =>
    ndarray(
      "int64",
      [targets.length],
      BigInt64Array.from(targets, (target) => BigInt(value(target))),
    );
  return { targetIndices: column(({ index }) => index), targetIds: column(({ id }) => id) };
}
