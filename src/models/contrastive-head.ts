/**
 * A contrastive head: images and texts as vectors of length 1, in which an image lies near the texts that fit it. It has no
 * space of its own, but that of the language model's words. An image is the mean of its image tokens; a text is the sum of
 * its words' frozen embeddings, each centred, brought to length 1, and weighted by how telling the word is.
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
  /** How telling each word is, [vocabSize]; below zero it counts nothing. */
  wordWeight: "word_weight.weight",
  /** The mean of all word embeddings, [hiddenSize]. */
  wordMean: "word_mean",
  /** What all images have in common, [hiddenSize]; it is taken out of each. A head that is not kept has none. */
  // The name in released files.
  imageShift: "picture_shift",
} as const;

/** Image tokens [images, tokens, hiddenSize] -> [images, hiddenSize], of length 1. */
export function imageEmbedding(head: Weights, tokens: Value): Value {
  const direction = l2Normalize(reduceMean(tokens, [1], { keep: false }));
  if (!head.has(headNames.imageShift)) return direction;
  return l2Normalize(direction.sub(head.get(headNames.imageShift, [tokens.size(-1)])));
}

/** Token ids of the texts, as `textInputs` gives them -> [texts, hiddenSize], of length 1; zeros where no word counts. */
export function textEmbedding(head: Weights, llm: Weights, { ids, mask }: TextInputs, config: LlamaConfig): Value {
  const { vocabSize, hiddenSize } = config;
  const rows = embedTokens(llm, ids, config).sub(head.get(headNames.wordMean, [hiddenSize]));
  const weights = relu(gather(head.get(headNames.wordWeight, [vocabSize, 1]), ids)).mul(mask);
  return l2Normalize(reduceSum(l2Normalize(rows).mul(weights), [1], { keep: false }));
}

/** Texts of different lengths side by side. */
export interface TextInputs {
  /** int64 [texts, words] */
  readonly ids: Value;
  /** float32 [texts, words, 1]: 1, or 0 where a shorter text is filled up. */
  readonly mask: Value;
}

/** Texts as constants of a graph, filled up on the right. */
export function constantTexts({ graph }: Weights, texts: readonly (readonly number[])[]): TextInputs {
  const { textIds, textMask } = textArrays(texts);
  return { ids: graph.constant(textIds), mask: graph.constant(textMask) };
}

/** Texts as inputs of a graph, which `textArrays` feeds. @param axis the name of the texts' axis */
export function textInputs({ graph }: Weights, axis: string): TextInputs {
  return {
    ids: graph.input("textIds", "int64", [axis, "words"]),
    mask: graph.input("textMask", "float32", [axis, "words", 1]),
  };
}

/** Feeds of `textInputs`: token ids, filled up on the right where the mask is 0. */
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
