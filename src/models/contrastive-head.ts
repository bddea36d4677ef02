/**
 * A contrastive head: embeds images and texts as unit vectors in the space of the language model's word embeddings. An image is the mean
 * of its image tokens. A text is the weighted sum of its frozen word embeddings, centered and L2-normalized, with a learned weight per word.
 */
import { l2Normalize } from "../nn/layers.ts";
import type { Weights } from "../nn/weights.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import { relu } from "../tensor/ops/elementwise.ts";
import { gather } from "../tensor/ops/gather.ts";
import { reduceMean, reduceSum } from "../tensor/ops/reduce.ts";
import { embedTokens, type LlamaConfig } from "./llama.ts";

/** Names of the head's weights. */
export const headNames = {
  /** Weight of each word, [vocabSize, 1]; negative weights count as zero. */
  wordWeight: "word_weight.weight",
  /** The mean of all word embeddings, [hiddenSize]. */
  wordMean: "word_mean",
  /** Mean of the image embeddings, [hiddenSize], which is subtracted (optional). The name is that of released files. */
  imageShift: "picture_shift",
} as const;

/** Image tokens [images, tokens, hiddenSize] -> [images, hiddenSize], L2-normalized. */
export function imageEmbedding(head: Weights, tokens: Value): Value {
  const direction = l2Normalize(reduceMean(tokens, [1], { keep: false }));
  if (!head.has(headNames.imageShift)) return direction;
  return l2Normalize(direction.sub(head.get(headNames.imageShift, [tokens.size(-1)])));
}

/** Texts -> [texts, hiddenSize], L2-normalized; zeros for texts without a word of positive weight. */
export function textEmbedding(head: Weights, llm: Weights, { ids, mask }: TextInputs, config: LlamaConfig): Value {
  const { vocabSize, hiddenSize } = config;
  const rows = embedTokens(llm, ids, config).sub(head.get(headNames.wordMean, [hiddenSize]));
  const weights = relu(gather(head.get(headNames.wordWeight, [vocabSize, 1]), ids)).mul(mask);
  return l2Normalize(reduceSum(l2Normalize(rows).mul(weights), [1], { keep: false }));
}

/** A padded batch of texts. */
export interface TextInputs {
  /** int64 [texts, words] */
  readonly ids: Value;
  /** float32 [texts, words, 1]: 1 for tokens, 0 for padding. */
  readonly mask: Value;
}

/** Texts as constants of a graph, padded on the right. */
export function constantTexts({ graph }: Weights, texts: readonly (readonly number[])[]): TextInputs {
  const { textIds, textMask } = textArrays(texts);
  return { ids: graph.constant(textIds), mask: graph.constant(textMask) };
}

/** Texts as inputs of a graph; `textArrays` creates the feeds. @param axis the name of the batch size */
export function textInputs({ graph }: Weights, axis: string): TextInputs {
  return {
    ids: graph.input("textIds", "int64", [axis, "words"]),
    mask: graph.input("textMask", "float32", [axis, "words", 1]),
  };
}

/** Feeds of `textInputs`: token ids, padded on the right, and their mask. */
export function textArrays(texts: readonly (readonly number[])[]): Record<"textIds" | "textMask", NdArray> {
  const length = Math.max(...texts.map((ids) => ids.length));
  const ids = new BigInt64Array(texts.length * length);
  const mask = new Float32Array(texts.length * length);
  texts.forEach((text, row) => {
    text.forEach((id, i) => {
      ids[row * length + i] = BigInt(id);
      mask[row * length + i] = 1;
    });
  });
  return {
    textIds: ndarray("int64", [texts.length, length], ids),
    textMask: ndarray("float32", [texts.length, length, 1], mask),
  };
}

/** The mean of the rows of a table [rows, width]. */
export function meanRow(table: Float32Array, width: number): Float32Array {
  const sums = new Float64Array(width);
  for (let i = 0; i < table.length; i++) sums[i % width] = (sums[i % width] as number) + (table[i] as number);
  return Float32Array.from(sums, (sum) => (sum * width) / table.length);
}
