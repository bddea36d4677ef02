/**
 * The Q-Former of BLIP-2 (Li et al., arXiv 2301.12597, section 3.1): a BERT whose learned queries attend to image features.
 * Weight names are those of the released checkpoints (`Qformer.bert...`, `query_tokens`).
 */
import { attention, causalMask, joinHeads, masked, splitHeads } from "../nn/attention.ts";
import { embedding, layerNorm, linear } from "../nn/layers.ts";
import type { Weights } from "../nn/weights.ts";
import type { Value } from "../tensor/graph.ts";
import { cast, gelu } from "../tensor/ops/elementwise.ts";
import { gather } from "../tensor/ops/gather.ts";
import { concat, expand, reshape, slice } from "../tensor/ops/layout.ts";
import type { Dim } from "../tensor/shapes.ts";

export interface QFormerConfig {
  readonly numQueryTokens: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  /** Width of the image features. */
  readonly encoderWidth: number;
  /** Every n-th layer, starting with the first, has cross-attention to the image. */
  readonly crossAttentionFrequency: number;
  readonly layerNormEps: number;
  /** Text side: rows of the word table. */
  readonly vocabSize?: number;
  /** Text side: rows of the position table. */
  readonly maxPositionEmbeddings?: number;
}

/** Whether a weight is used for text only, and never for queries. */
export function isTextSide(name: string): boolean {
  return /^Qformer\.(cls\.|bert\.embeddings\.\w+_embeddings\.|bert\.encoder\.layer\.\d+\.(intermediate|output)\.)/.test(
    name,
  );
}

/** A batch of texts. */
export interface QFormerText {
  /** int64 [batch, length]. */
  readonly ids: Value;
  /** 1 for a token, 0 for padding: int64 [batch, length]. */
  readonly attentionMask: Value;
}

/** Applied to the output of a sublayer before the residual addition in training (dropout). */
export type Regularizer = (x: Value) => Value;

/** Keys and values of one attention, [batch, heads, length, hiddenSize / heads] each. */
interface KeysValues {
  readonly keys: Value;
  readonly values: Value;
}

/** Keys and values of the images for each layer; undefined for layers without cross-attention. */
export type CrossAttentionCache = readonly (KeysValues | undefined)[];

/** Projects image features [images, cells, encoderWidth] to keys and values, which several passes may share. */
export function projectImages(w: Weights, image: Value, config: QFormerConfig): CrossAttentionCache {
  return Array.from({ length: config.numHiddenLayers }, (_, i) => {
    if (i % config.crossAttentionFrequency !== 0) return undefined;
    const layer = w.at("Qformer.bert.encoder.layer").at(i);
    return image.graph.scope(`Qformer.layer.${i}`, () => keysValues(layer.at("crossattention"), image, config));
  });
}

/** Selects the images at `indices` [n], one for each sequence of a pass. */
export function gatherImages(memory: CrossAttentionCache, indices: Value): CrossAttentionCache {
  return memory.map((layer) => layer && { keys: gather(layer.keys, indices), values: gather(layer.values, indices) });
}

/** Image features [batch, cells, encoderWidth] -> [batch, numQueryTokens, hiddenSize]. */
export function qformer(w: Weights, image: Value, config: QFormerConfig, regularize?: Regularizer): Value {
  return qformerQueries(w, projectImages(w, image, config), image.dim(0), config, regularize).hidden;
}

/** The output of the queries, and the keys and values of their self-attention in each layer, for text after them. */
export interface QueryPass {
  /** [batch, numQueryTokens, hiddenSize] */
  readonly hidden: Value;
  readonly past: readonly KeysValues[];
}

/** The queries without text. @param batch the number of images in `memory` */
export function qformerQueries(
  w: Weights,
  memory: CrossAttentionCache,
  batch: Dim,
  config: QFormerConfig,
  regularize?: Regularizer,
): QueryPass {
  return encode(w, { queries: embedQueries(w, batch, config), memory }, config, regularize);
}

/** Text without queries (the unimodal mask): [batch, length, hiddenSize]. */
export function qformerText(w: Weights, text: QFormerText, config: QFormerConfig, regularize?: Regularizer): Value {
  const mask = hidePadding(text.attentionMask);
  return encode(w, { text: embedText(w, text.ids, config), mask }, config, regularize).hidden;
}

/**
 * Text that attends to the queries and to earlier tokens (the multimodal causal mask): [batch, length, hiddenSize]. The queries do not
 * attend to it, so the keys and values of their pass are reused.
 */
export function qformerTextAfter(
  w: Weights,
  { past }: QueryPass,
  text: QFormerText,
  config: QFormerConfig,
  regularize?: Regularizer,
): Value {
  const x = embedText(w, text.ids, config);
  const [batch, length] = [x.dim(0), x.dim(1)];
  const toText = expand(hidePadding(text.attentionMask).add(causalMask(x.graph, length)), [batch, 1, length, length]);
  const toQueries = expand(x.graph.scalar(0), [batch, 1, length, config.numQueryTokens]);
  return encode(w, { text: x, past, mask: concat([toQueries, toText], 3) }, config, regularize).hidden;
}

/** Queries and text that attend to each other (the bidirectional mask): [batch, numQueryTokens + length, hiddenSize], the queries first. */
export function qformerImageText(
  w: Weights,
  memory: CrossAttentionCache,
  text: QFormerText,
  config: QFormerConfig,
): Value {
  const words = embedText(w, text.ids, config);
  const batch = words.dim(0);
  const queries = embedQueries(w, batch, config);
  const toQueries = expand(words.graph.scalar(0), [batch, 1, 1, config.numQueryTokens]);
  const mask = concat([toQueries, hidePadding(text.attentionMask)], 3);
  return encode(w, { queries, text: words, memory, mask }, config).hidden;
}

/** The input of the layers: queries, text, or both. Only queries attend to the images. */
interface Sequence {
  readonly queries?: Value;
  readonly text?: Value;
  readonly memory?: CrossAttentionCache;
  /** Keys and values of positions before the sequence, for each layer. */
  readonly past?: readonly KeysValues[];
  /** Added to the self-attention scores. */
  readonly mask?: Value;
}

function encode(
  w: Weights,
  { queries, text, memory, past, mask }: Sequence,
  config: QFormerConfig,
  regularize: Regularizer = (x) => x,
): QueryPass {
  const network = { ...config, regularize };
  const bert = w.at("Qformer.bert");
  const parts = [queries, text].filter((part) => part !== undefined);
  const queryLength = queries ? config.numQueryTokens : 0;
  const all: KeysValues[] = [];
  let x = regularize(layerNorm(bert.at("embeddings.LayerNorm"), concat(parts, 1), config.layerNormEps));
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = bert.at("encoder.layer").at(i);
    x = x.graph.scope(`Qformer.layer.${i}`, () => {
      const own = keysValues(layer.at("attention"), x, network);
      all.push(own);
      const context = concatPast(past?.[i], own);
      return qformerLayer(layer, x, { queryLength, context, image: memory?.[i], mask }, network);
    });
  }
  return { hidden: x, past: all };
}

/** Appends keys and values to those of earlier positions, if any. */
function concatPast(past: KeysValues | undefined, own: KeysValues): KeysValues {
  if (!past) return own;
  return { keys: concat([past.keys, own.keys], 2), values: concat([past.values, own.values], 2) };
}

interface Network extends QFormerConfig {
  readonly regularize: Regularizer;
}

interface LayerInputs {
  /** Number of leading positions that are queries. */
  readonly queryLength: number;
  /** Keys and values of self-attention. */
  readonly context: KeysValues;
  /** Keys and values of the images, in layers with cross-attention. */
  readonly image?: KeysValues;
  readonly mask?: Value;
}

/** One layer: x [batch, n, hiddenSize] -> same shape. Queries and text have separate feed-forward networks. */
function qformerLayer(
  w: Weights,
  x: Value,
  { queryLength, context, image, mask }: LayerInputs,
  network: Network,
): Value {
  const attended = bertAttention(w.at("attention"), x, context, network, mask);
  if (queryLength === 0) return feedForward(w.at("intermediate"), w.at("output"), attended, network);
  const queries = slice(attended, 1, 0, queryLength);
  const crossAttended = image ? bertAttention(w.at("crossattention"), queries, image, network) : queries;
  const forQueries = feedForward(w.at("intermediate_query"), w.at("output_query"), crossAttended, network);
  if (x.dim(1) === queryLength) return forQueries;
  const words = slice(attended, 1, queryLength);
  return concat([forQueries, feedForward(w.at("intermediate"), w.at("output"), words, network)], 1);
}

/** context [batch, length, width] -> keys and values of one attention. */
function keysValues(w: Weights, context: Value, { hiddenSize, numAttentionHeads: heads }: QFormerConfig): KeysValues {
  const head = (name: string) => splitHeads(linear(w.at("self").at(name), context, hiddenSize), heads);
  return { keys: head("key"), values: head("value") };
}

/** Attention of x [batch, n, hiddenSize], residual addition and norm (post-norm, as in BERT) -> same shape. */
function bertAttention(w: Weights, x: Value, { keys, values }: KeysValues, network: Network, mask?: Value): Value {
  const { hiddenSize, numAttentionHeads: heads, layerNormEps } = network;
  const queries = splitHeads(linear(w.at("self.query"), x, hiddenSize), heads);
  const out = linear(w.at("output.dense"), joinHeads(attention(queries, keys, values, mask)), hiddenSize);
  return layerNorm(w.at("output.LayerNorm"), x.add(network.regularize(out)), layerNormEps);
}

/** Feed-forward network, residual addition and norm: x [batch, n, hiddenSize] -> same shape. */
function feedForward(inner: Weights, outer: Weights, x: Value, network: Network): Value {
  const hidden = gelu(linear(inner.at("dense"), x, network.intermediateSize));
  const out = linear(outer.at("dense"), hidden, network.hiddenSize);
  return layerNorm(outer.at("LayerNorm"), x.add(network.regularize(out)), network.layerNormEps);
}

/** [batch, numQueryTokens, hiddenSize]. */
function embedQueries(w: Weights, batch: Dim, { numQueryTokens, hiddenSize }: QFormerConfig): Value {
  return expand(w.get("query_tokens", [1, numQueryTokens, hiddenSize]), [batch, numQueryTokens, hiddenSize]);
}

/** Word and position embeddings: ids [batch, length] -> [batch, length, hiddenSize]. */
function embedText(w: Weights, ids: Value, { vocabSize, maxPositionEmbeddings, hiddenSize }: QFormerConfig): Value {
  if (!vocabSize || !maxPositionEmbeddings) throw new Error("This Q-Former's config has no text side (vocabSize)");
  const embeddings = w.at("Qformer.bert.embeddings");
  const words = embedding(embeddings.at("word_embeddings"), ids, vocabSize, hiddenSize);
  const positions = embeddings.at("position_embeddings").get("weight", [maxPositionEmbeddings, hiddenSize]);
  return words.add(slice(positions, 0, 0, ids.dim(1)));
}

/** attentionMask [batch, length] -> additive mask [batch, 1, 1, length]. */
function hidePadding(attentionMask: Value): Value {
  const hidden = cast(attentionMask, "float32").sub(1).mul(-masked);
  return reshape(hidden, [attentionMask.dim(0), 1, 1, attentionMask.dim(1)]);
}
