/**
 * LLaMA (Touvron et al., arXiv 2302.13971) and its family: grouped-query attention, tied embeddings, any rotary base.
 * Weight names are those of Hugging Face's `LlamaForCausalLM`.
 */
import { attention, cachedAttention, causalMask, joinHeads, splitHeads } from "../nn/attention.ts";
import { embedding, gatedMlp, linear, linears, rmsNorm } from "../nn/layers.ts";
import { rotaryTables } from "../nn/positions.ts";
import type { Weights } from "../nn/weights.ts";
import type { Value } from "../tensor/graph.ts";
import { groupQueryAttention, rotaryEmbedding } from "../tensor/ops/attention.ts";
import { gather } from "../tensor/ops/gather.ts";
import { reshape } from "../tensor/ops/layout.ts";
import { logSumExp, reduceSum } from "../tensor/ops/reduce.ts";
import type { QuantizedMatrices } from "../tensor/quant/quantization.ts";
import { mulDims } from "../tensor/shapes.ts";

/** Dimensions, by their names in `config.json`, in camel case. */
export interface LlamaConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** Positions that the model knows; longer contexts are refused. */
  readonly maxPositionEmbeddings: number;
  /** The output layer is the table of input embeddings. */
  readonly tieWordEmbeddings: boolean;
}

/** The matrices that quantization is for: to blocks all of them, and in 8-bit arithmetic those of `activationBits`. */
export const llamaMatrices: QuantizedMatrices = {
  inBlocks: (name) => /_proj\.weight$|^lm_head\.weight$|embed_tokens\.weight$/.test(name),
  activationBits,
};

/**
 * Bits of the activations where a matrix is multiplied in 8-bit arithmetic while a projection is trained through the model. The output
 * layer stays in float32.
 *
 * Measured with SmolLM2-135M on four batches of 16 captions, against float32, at the beginning and at the end of the projection's
 * training. This choice moves the loss by 0.03 at most and by 0.01 on average, and leaves the gradient of the projection a cosine of
 * 0.989 or more. With 8 bits before the queries, keys and values too, the cosine falls to 0.95; with 8 bits before
 * the down projections, whose activations have outliers, the loss moves by 0.06 on average. With 16 bits everywhere it
 * is 0.01 and 0.993, at 1.1 times the cost. The output layer's gradient is spread over the vocabulary, nearly all of it
 * below one step of 8 bits: alone it brings the cosine to 0.81.
 */
function activationBits(name: string): 8 | 16 | undefined {
  if (/\.(q|k|v|down)_proj\.weight$/.test(name)) return 16;
  return /\.(o|gate|up)_proj\.weight$/.test(name) ? 8 : undefined;
}

/** Keys and values of one layer, [batch, kvHeads, n, headDim] each. */
interface LayerCache {
  readonly keys: Value;
  readonly values: Value;
}

/** Earlier positions of all layers. */
interface LlamaPast {
  readonly layers: readonly LayerCache[];
  /** float32 [batch, past]: 0 where the cache holds a position, a large negative number where it does not. */
  readonly mask: Value;
}

export interface LlamaOptions {
  /** Earlier positions; each new position sees itself, the new ones before it, and the past. */
  readonly past?: LlamaPast;
  /** Takes the place of this causal rule: added to the scores, broadcasts against [batch, heads, sequence, sequence]. */
  readonly mask?: Value;
  /** int64 [selected]: the places of [batch * sequence] whose output is computed. The last layer computes only these. */
  readonly outputIndices?: Value;
}

export interface LlamaOutput {
  /** After the last norm, [batch, sequence, hiddenSize], or [selected, hiddenSize]; `logits` computes the logits of its rows. */
  readonly hidden: Value;
  /** Of the new positions alone. */
  readonly cache: readonly LayerCache[];
}

/** Embeddings of token ids: int64 [...] -> [..., hiddenSize]. */
export function embedTokens(w: Weights, ids: Value, config: LlamaConfig): Value {
  return embedding(w.at("model.embed_tokens"), ids, config.vocabSize, config.hiddenSize);
}

/**
 * The transformer over embeddings [batch, sequence, hiddenSize].
 *
 * @param positions int64 [batch, sequence]
 */
export function llama(
  w: Weights,
  embeddings: Value,
  positions: Value,
  config: LlamaConfig,
  { past, mask: ownMask, outputIndices }: LlamaOptions = {},
): LlamaOutput {
  const { graph } = embeddings;
  const mask = ownMask ?? causalMask(graph, embeddings.dim(1), past?.mask);
  const rotary = rotaryTables(graph, config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  const model = w.at("model");
  const cache: LayerCache[] = [];
  let x = embeddings;
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const places = i === config.numHiddenLayers - 1 ? outputIndices : undefined;
    x = graph.scope(`layers.${i}`, () => {
      const seen = { positions, rotary, mask, past: past?.layers[i], places };
      const { hidden, cache: own } = llamaLayer(model.at("layers").at(i), x, seen, config);
      cache.push(own);
      return hidden;
    });
  }
  return { hidden: rmsNorm(model.at("norm"), x, config.rmsNormEps), cache };
}

/** The sequence, as each layer needs it. */
interface Seen {
  /** int64 [batch, sequence]. */
  readonly positions: Value;
  readonly rotary: { readonly cos: Value; readonly sin: Value };
  /** None where one sequence is read behind its past in order: that is one operator, which needs no mask and has no gradient. */
  readonly mask?: Value;
  readonly past?: LayerCache | undefined;
  /** The places whose output is computed; all by default. */
  readonly places?: Value | undefined;
}

/** One layer: x [batch, sequence, hiddenSize] -> [batch, sequence, hiddenSize], or [places, hiddenSize]. */
export function llamaLayer(
  w: Weights,
  x: Value,
  { places, ...seen }: Seen,
  config: LlamaConfig,
): { readonly hidden: Value; readonly cache: LayerCache } {
  const normal = rmsNorm(w.at("input_layernorm"), x, config.rmsNormEps);
  const { out, ...cache } = selfAttention(w.at("self_attn"), normal, seen, config);
  const [before, heads] = [rowsAt(x, places), rowsAt(out, places)];
  const attended = before.add(linear(w.at("self_attn.o_proj"), heads, config.hiddenSize));
  const post = rmsNorm(w.at("post_attention_layernorm"), attended, config.rmsNormEps);
  const hidden = attended.add(gatedMlp(w.at("mlp"), post, config.intermediateSize));
  return { hidden, cache };
}

/** `out` [batch, sequence, heads * headDim], and the keys and values of the new positions. */
function selfAttention(
  w: Weights,
  x: Value,
  { positions, rotary, mask, past }: Omit<Seen, "places">,
  config: LlamaConfig,
): LayerCache & { readonly out: Value } {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
  const sizes = { q_proj: heads * headDim, k_proj: kvHeads * headDim, v_proj: kvHeads * headDim };
  const [q, k, v] = linears(w, x, sizes) as [Value, Value, Value];
  const turn = (value: Value, count: number) => rotaryEmbedding(value, positions, rotary.cos, rotary.sin, count);
  const [turnedQ, turnedK] = [turn(q, heads), turn(k, kvHeads)];
  if (past && !mask) return groupQueryAttention({ q: turnedQ, k: turnedK, v, positions, ...past });
  const [queries, keys, values] = [splitHeads(turnedQ, heads), splitHeads(turnedK, kvHeads), splitHeads(v, kvHeads)];
  const attended =
    past && mask ? cachedAttention(queries, keys, values, { ...past, mask }) : attention(queries, keys, values, mask);
  return { out: joinHeads(attended), keys, values };
}

/** x [batch, sequence, width] at some places of [batch * sequence] -> [places, width]; all of it if none are given. */
function rowsAt(x: Value, places: Value | undefined): Value {
  return places ? gather(reshape(x, [mulDims(x.dim(0), x.dim(1)), x.dim(2)]), places) : x;
}

/** Logits of the next token: hidden [..., hiddenSize] -> [..., vocabSize]. */
export function logits(w: Weights, hidden: Value, config: LlamaConfig): Value {
  return linear(outputLayer(w, config), hidden, config.vocabSize);
}

/**
 * -log softmax of the scores at one token for each place: hidden [places, hiddenSize], ids int64 [places] -> [places].
 *
 * The token's score is computed by itself: picked out of the scores of the whole vocabulary, it would have a gradient of
 * their size, all zeros but one in each row.
 */
export function negativeLogLikelihood(w: Weights, hidden: Value, ids: Value, config: LlamaConfig): Value {
  const row = embedding(outputLayer(w, config), ids, config.vocabSize, config.hiddenSize);
  const score = reduceSum(hidden.mul(row), [1]);
  return reshape(logSumExp(logits(w, hidden, config)).sub(score), [hidden.dim(0)]);
}

function outputLayer(w: Weights, config: LlamaConfig): Weights {
  return config.tieWordEmbeddings ? w.at("model.embed_tokens") : w.at("lm_head");
}
