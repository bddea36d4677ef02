/**
 * LLaMA (Touvron et al., arXiv 2302.13971, section 2.2) and its family: grouped-query attention, tied embeddings, any rotary base.
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

/** Hyperparameters: the keys of `config.json` in camel case. */
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
  /** Maximum context length; longer contexts are rejected. */
  readonly maxPositionEmbeddings: number;
  /** Whether the output layer shares the table of input embeddings. */
  readonly tieWordEmbeddings: boolean;
}

/** The matrices that are quantized: all of them to blocks, those of `activationBits` to int8. */
export const llamaMatrices: QuantizedMatrices = {
  inBlocks: (name) => /_proj\.weight$|^lm_head\.weight$|embed_tokens\.weight$/.test(name),
  activationBits,
};

/**
 * Bits of the activations for training a projection through a model in int8. The output layer stays in float32.
 *
 * Measured with SmolLM2-135M on four batches of 16 captions, against float32, at the start and at the end of the projection's training.
 * This choice changes the loss by 0.01 on average (0.03 at most), and the gradient of the projection keeps a cosine similarity of at least
 * 0.989. With 8 bits also for the inputs of the queries, keys and values, the cosine drops to 0.95. With 8 bits for the inputs of the down
 * projections, which have outliers, the loss changes by 0.06 on average. 16 bits everywhere give 0.01 and 0.993 at 1.1 times the cost. The
 * gradient of the output layer is spread over the vocabulary, mostly below one int8 step: int8 there alone lowers the cosine to 0.81.
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

/** The KV cache of all layers. */
interface LlamaPast {
  readonly layers: readonly LayerCache[];
  /** float32 [batch, past]: 0 for used positions of the cache, a large negative number for unused ones. */
  readonly mask: Value;
}

export interface LlamaOptions {
  /** KV cache. New positions attend to it, to earlier new positions and to themselves. */
  readonly past?: LlamaPast;
  /** Replaces the causal mask: added to the attention scores, broadcasts against [batch, heads, sequence, sequence]. */
  readonly mask?: Value;
  /** int64 [selected]: indices into [batch * sequence] of the positions whose output is computed. @default all positions */
  readonly outputIndices?: Value;
}

export interface LlamaOutput {
  /** After the last norm, [batch, sequence, hiddenSize], or [selected, hiddenSize] with `outputIndices`. The input of `logits`. */
  readonly hidden: Value;
  /** Keys and values of the new positions, per layer. */
  readonly cache: readonly LayerCache[];
}

/** Embeddings of token ids: int64 [...] -> [..., hiddenSize]. */
export function embedTokens(w: Weights, ids: Value, config: LlamaConfig): Value {
  return embedding(w.at("model.embed_tokens"), ids, config.vocabSize, config.hiddenSize);
}

/**
 * The transformer without its output layer: embeddings [batch, sequence, hiddenSize] -> `hidden` of the same shape.
 *
 * @param positions int64 [batch, sequence]
 */
export function llama(
  w: Weights,
  embeddings: Value,
  positions: Value,
  config: LlamaConfig,
  { past, mask: givenMask, outputIndices }: LlamaOptions = {},
): LlamaOutput {
  const { graph } = embeddings;
  const mask = givenMask ?? causalMask(graph, embeddings.dim(1), past?.mask);
  const rotary = rotaryTables(graph, config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  const model = w.at("model");
  const cache: LayerCache[] = [];
  let x = embeddings;
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const selected = i === config.numHiddenLayers - 1 ? outputIndices : undefined;
    x = graph.scope(`layers.${i}`, () => {
      const context = { positions, rotary, mask, past: past?.layers[i], outputIndices: selected };
      const layer = llamaLayer(model.at("layers").at(i), x, context, config);
      cache.push(layer.cache);
      return layer.hidden;
    });
  }
  return { hidden: rmsNorm(model.at("norm"), x, config.rmsNormEps), cache };
}

/** Inputs of a layer other than the hidden state. */
interface LayerContext {
  /** int64 [batch, sequence]. */
  readonly positions: Value;
  readonly rotary: { readonly cos: Value; readonly sin: Value };
  /** Omitted with a `past` and one sequence of consecutive positions: the runtime's fused operator is used, which has no gradient. */
  readonly mask?: Value;
  readonly past?: LayerCache;
  /** int64 [selected]. @default all positions */
  readonly outputIndices?: Value;
}

/** One transformer layer: x [batch, sequence, hiddenSize] -> `hidden` of the same shape, or [selected, hiddenSize]. */
export function llamaLayer(
  w: Weights,
  x: Value,
  { outputIndices, ...context }: LayerContext,
  config: LlamaConfig,
): { readonly hidden: Value; readonly cache: LayerCache } {
  const normal = rmsNorm(w.at("input_layernorm"), x, config.rmsNormEps);
  const { out, ...cache } = selfAttention(w.at("self_attn"), normal, context, config);
  const [residual, heads] = [selectRows(x, outputIndices), selectRows(out, outputIndices)];
  const attended = residual.add(linear(w.at("self_attn.o_proj"), heads, config.hiddenSize));
  const post = rmsNorm(w.at("post_attention_layernorm"), attended, config.rmsNormEps);
  const hidden = attended.add(gatedMlp(w.at("mlp"), post, config.intermediateSize));
  return { hidden, cache };
}

/** x [batch, sequence, hiddenSize] -> `out` [batch, sequence, heads * headDim], and keys and values of the new positions. */
function selfAttention(
  w: Weights,
  x: Value,
  { positions, rotary, mask, past }: Omit<LayerContext, "outputIndices">,
  config: LlamaConfig,
): LayerCache & { readonly out: Value } {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
  const sizes = { q_proj: heads * headDim, k_proj: kvHeads * headDim, v_proj: kvHeads * headDim };
  const [q, k, v] = linears(w, x, sizes) as [Value, Value, Value];
  const rotate = (value: Value, count: number) => rotaryEmbedding(value, positions, rotary.cos, rotary.sin, count);
  const [rotatedQ, rotatedK] = [rotate(q, heads), rotate(k, kvHeads)];
  if (past && !mask) return groupQueryAttention({ q: rotatedQ, k: rotatedK, v, positions, ...past });
  const [queries, keys, values] = [splitHeads(rotatedQ, heads), splitHeads(rotatedK, kvHeads), splitHeads(v, kvHeads)];
  const attended =
    past && mask ? cachedAttention(queries, keys, values, { ...past, mask }) : attention(queries, keys, values, mask);
  return { out: joinHeads(attended), keys, values };
}

/** x [batch, sequence, width], indices [selected] into [batch * sequence] -> [selected, width]; x itself without indices. */
function selectRows(x: Value, indices?: Value): Value {
  return indices ? gather(reshape(x, [mulDims(x.dim(0), x.dim(1)), x.dim(2)]), indices) : x;
}

/** Logits of the next token: hidden [..., hiddenSize] -> [..., vocabSize]. */
export function logits(w: Weights, hidden: Value, config: LlamaConfig): Value {
  return linear(outputLayer(w, config), hidden, config.vocabSize);
}

/**
 * Negative log-likelihood of one token per position: hidden [targets, hiddenSize], ids int64 [targets] -> [targets].
 *
 * The target's logit is computed separately: gathered from all logits, it would have a gradient of their size with one nonzero element
 * per row.
 */
export function negativeLogLikelihood(w: Weights, hidden: Value, ids: Value, config: LlamaConfig): Value {
  const row = embedding(outputLayer(w, config), ids, config.vocabSize, config.hiddenSize);
  const targetLogit = reduceSum(hidden.mul(row), [1]);
  return reshape(logSumExp(logits(w, hidden, config)).sub(targetLogit), [hidden.dim(0)]);
}

function outputLayer(w: Weights, config: LlamaConfig): Weights {
  return config.tieWordEmbeddings ? w.at("model.embed_tokens") : w.at("lm_head");
}
