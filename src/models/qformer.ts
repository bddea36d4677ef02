/**
 * The Q-Former of BLIP-2 (Li et al., arXiv 2301.12597, section 3.1): a BERT whose learned queries look at an image.
 * Weight names are those of the released checkpoints (`Qformer.bert...`, `query_tokens`).
 */
import { attention, causalMask, joinHeads, masked, splitHeads } from "../nn/attention.ts";
import { embedding, linear } from "../nn/linear.ts";
import { layerNorm } from "../nn/norm.ts";
import type { Weights } from "../nn/weights.ts";
import type { Dim } from "../tensor/dims.ts";
import { cast, gelu } from "../tensor/elementwise.ts";
import type { Value } from "../tensor/graph.ts";
import { concat, expand, reshape, slice } from "../tensor/layout.ts";

export interface QFormerConfig {
  readonly numQueryTokens: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  /** Width of the image features that the queries look at. */
  readonly encoderWidth: number;
  /** Every how many layers the queries look at the image, beginning with the first. */
  readonly crossAttentionFrequency: number;
  readonly layerNormEps: number;
  /** Text side: rows of the word table. */
  readonly vocabSize?: number;
  /** Text side: rows of the position table. */
  readonly maxPositionEmbeddings?: number;
}

/** Who sees whom (BLIP-2, figure 2): all see all; text sees queries and earlier text; neither sees the other. */
export type QFormerMask = "bidirectional" | "causal" | "unimodal";

/** Text tokens beside the queries. */
export interface QFormerText {
  /** int64 [batch, length]. */
  readonly ids: Value;
  /** 1 for a token, 0 for padding: int64 [batch, length]. */
  readonly attentionMask: Value;
}

/** What is done to a layer's output before it is added in training (dropout); nothing otherwise. */
export type Regularizer = (x: Value) => Value;

/** Image features [batch, cells, encoderWidth] -> [batch, numQueryTokens, hiddenSize]. */
export function qformer(w: Weights, image: Value, config: QFormerConfig, regularize: Regularizer = (x) => x): Value {
  const queries = embedQueries(w, image.dim(0), config);
  return encode(w, { queries, image }, config, regularize);
}

/** Text alone: [batch, length, hiddenSize]; with `causal`, each token sees only itself and earlier ones. */
export function qformerText(w: Weights, text: QFormerText, config: QFormerConfig, causal = false): Value {
  const x = embedText(w, text.ids, config);
  const padding = hidePadding(text.attentionMask);
  const mask = causal ? causalMask(x.graph, x.dim(1)).add(padding) : padding;
  return encode(w, { text: x, mask }, config);
}

/** Queries and text together: [batch, numQueryTokens + length, hiddenSize], the queries first. */
export function qformerImageText(
  w: Weights,
  image: Value,
  text: QFormerText,
  config: QFormerConfig,
  visibility: QFormerMask,
): Value {
  const queries = embedQueries(w, image.dim(0), config);
  const words = embedText(w, text.ids, config);
  return encode(
    w,
    { queries, text: words, image, mask: jointMask(queries, words, text.attentionMask, visibility) },
    config,
  );
}

/** What goes through the layers: queries, text, or both; the image is seen by the queries alone. */
interface Sequence {
  readonly queries?: Value;
  readonly text?: Value;
  readonly image?: Value;
  /** Added to the scores of self-attention. */
  readonly mask?: Value;
}

function encode(
  w: Weights,
  { queries, text, image, mask }: Sequence,
  config: QFormerConfig,
  regularize: Regularizer = (x) => x,
): Value {
  const network = { ...config, regularize };
  const bert = w.at("Qformer.bert");
  const parts = [queries, text].filter((part) => part !== undefined);
  const queryLength = queries ? config.numQueryTokens : 0;
  let x = regularize(layerNorm(bert.at("embeddings.LayerNorm"), concat(parts, 1), config.layerNormEps));
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const layer = bert.at("encoder.layer").at(i);
    const looks = i % config.crossAttentionFrequency === 0;
    x = x.graph.scope(`Qformer.layer.${i}`, () =>
      qformerLayer(layer, x, queryLength, looks ? image : undefined, network, mask),
    );
  }
  return x;
}

interface Network extends QFormerConfig {
  readonly regularize: Regularizer;
}

/** One layer. x [batch, n, hiddenSize], of which the first `queryLength` are queries. */
function qformerLayer(
  w: Weights,
  x: Value,
  queryLength: number,
  image: Value | undefined,
  network: Network,
  mask: Value | undefined,
): Value {
  const attended = bertAttention(w.at("attention"), x, x, network, mask);
  if (queryLength === 0) return feedForward(w.at("intermediate"), w.at("output"), attended, network);
  const queries = slice(attended, 1, 0, queryLength);
  const looked = image ? bertAttention(w.at("crossattention"), queries, image, network) : queries;
  const forQueries = feedForward(w.at("intermediate_query"), w.at("output_query"), looked, network);
  if (x.dim(1) === queryLength) return forQueries;
  const words = slice(attended, 1, queryLength);
  return concat([forQueries, feedForward(w.at("intermediate"), w.at("output"), words, network)], 1);
}

/** Attention of `x` to `context`, added to `x` and normalised (post-norm, as in BERT). */
function bertAttention(w: Weights, x: Value, context: Value, network: Network, mask?: Value): Value {
  const { hiddenSize, numAttentionHeads: heads, layerNormEps } = network;
  const self = w.at("self");
  const head = (name: string, from: Value) => splitHeads(linear(self.at(name), from, hiddenSize), heads);
  const seen = attention(head("query", x), head("key", context), head("value", context), mask);
  const out = linear(w.at("output.dense"), joinHeads(seen), hiddenSize);
  return layerNorm(w.at("output.LayerNorm"), x.add(network.regularize(out)), layerNormEps);
}

function feedForward(inner: Weights, outer: Weights, x: Value, network: Network): Value {
  const hidden = gelu(linear(inner.at("dense"), x, network.intermediateSize));
  const out = linear(outer.at("dense"), hidden, network.hiddenSize);
  return layerNorm(outer.at("LayerNorm"), x.add(network.regularize(out)), network.layerNormEps);
}

function embedQueries(w: Weights, batch: Dim, { numQueryTokens, hiddenSize }: QFormerConfig): Value {
  return expand(w.get("query_tokens", [1, numQueryTokens, hiddenSize]), [batch, numQueryTokens, hiddenSize]);
}

/** Word plus position embeddings; queries have neither. */
function embedText(w: Weights, ids: Value, { vocabSize, maxPositionEmbeddings, hiddenSize }: QFormerConfig): Value {
  if (!vocabSize || !maxPositionEmbeddings) throw new Error("This Q-Former's config has no text side (vocabSize)");
  const embeddings = w.at("Qformer.bert.embeddings");
  const words = embedding(embeddings.at("word_embeddings"), ids, vocabSize, hiddenSize);
  const positions = embeddings.at("position_embeddings").get("weight", [maxPositionEmbeddings, hiddenSize]);
  return words.add(slice(positions, 0, 0, ids.dim(1)));
}

/** [batch, length] of ones and zeros -> [batch, 1, 1, length] to add to scores. */
function hidePadding(attentionMask: Value): Value {
  const hidden = cast(attentionMask, "float32").sub(1).mul(-masked);
  return reshape(hidden, [attentionMask.dim(0), 1, 1, attentionMask.dim(1)]);
}

/** [batch, 1, n, n] for queries followed by text. */
function jointMask(queries: Value, text: Value, attentionMask: Value, visibility: QFormerMask): Value {
  const { graph } = queries;
  const [batch, q, t] = [text.dim(0), queries.dim(1), text.dim(1)];
  const block = (hidden: boolean, m: Dim, n: Dim) => expand(graph.scalar(hidden ? masked : 0), [batch, 1, m, n]);
  const toText = (m: Dim) => expand(hidePadding(attentionMask), [batch, 1, m, t]);
  const fromQueries = concat([block(false, q, q), visibility === "bidirectional" ? toText(q) : block(true, q, t)], 3);
  const textToText = visibility === "causal" ? toText(t).add(causalMask(graph, t)) : toText(t);
  const fromText = concat([block(visibility === "unimodal", t, q), textToText], 3);
  return concat([fromQueries, fromText], 2);
}
