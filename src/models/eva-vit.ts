/**
 * The image encoder of BLIP-2 and MiniGPT-4: EVA-CLIP's ViT-g/14 (Fang et al., arXiv 2211.07636, section 2).
 * Weight names are those of `eva_vit_g.pth`.
 */
import { attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { layerNorm, linear } from "../nn/layers.ts";
import { resizePositions } from "../nn/positions.ts";
import type { Weights } from "../nn/weights.ts";
import type { Value } from "../tensor/graph.ts";
import { conv2d } from "../tensor/ops/convolution.ts";
import { gelu } from "../tensor/ops/elementwise.ts";
import { concat, expand, reshape, split, transpose } from "../tensor/ops/layout.ts";
import type { QuantizedMatrices } from "../tensor/quant/quantization.ts";

export interface EvaVitConfig {
  /** Height and width of the image in pixels. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly hiddenSize: number;
  /** Number of blocks; the released file contains one more, which BLIP-2 does not use. */
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  readonly layerNormEps: number;
}

const isBlockMatrix = (name: string) => /(^|\.)blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight$/.test(name);

/** The matrices that are quantized: all matrices of the transformer blocks. */
export const evaVitMatrices: QuantizedMatrices = {
  inBlocks: isBlockMatrix,
  activationBits: (name) => (isBlockMatrix(name) ? 8 : undefined),
};

/** pixels [batch, 3, imageSize, imageSize] -> [batch, 1 + patches, hiddenSize], the class token first. There is no final norm. */
export function evaVit(w: Weights, pixels: Value, config: EvaVitConfig): Value {
  let x = embedPatches(w, pixels, config);
  for (let i = 0; i < config.numHiddenLayers; i++) {
    x = x.graph.scope(`blocks.${i}`, () => evaVitBlock(w.at("blocks").at(i), x, config));
  }
  return x;
}

/** Patch, class token and position embeddings. Shapes as in `evaVit`. */
export function embedPatches(w: Weights, pixels: Value, { imageSize, patchSize, hiddenSize }: EvaVitConfig): Value {
  const side = Math.floor(imageSize / patchSize);
  const projection = w.at("patch_embed.proj");
  const kernel = projection.get("weight", [hiddenSize, 3, patchSize, patchSize]);
  const patches = conv2d(pixels, kernel, projection.get("bias", [hiddenSize]), { stride: patchSize });
  const batch = pixels.dim(0);
  const sequence = transpose(reshape(patches, [batch, hiddenSize, side * side]), [0, 2, 1]);
  const classToken = expand(w.get("cls_token", [1, 1, hiddenSize]), [batch, 1, hiddenSize]);
  return concat([classToken, sequence], 1).add(positions(w, side, hiddenSize));
}

/** Position embeddings [1, 1 + side * side, hiddenSize], interpolated if the file's are for another image size. */
function positions(w: Weights, side: number, hiddenSize: number): Value {
  const stored = Math.sqrt((w.shapeOf("pos_embed")?.[1] ?? 0) - 1);
  const from = Number.isInteger(stored) && stored > 0 ? stored : side;
  return resizePositions(w.get("pos_embed", [1, 1 + from * from, hiddenSize]), from, side);
}

/** One pre-norm block, x [batch, n, hiddenSize] -> same shape: x + attention(norm1(x)), then x + mlp(norm2(x)). */
export function evaVitBlock(w: Weights, x: Value, config: EvaVitConfig): Value {
  const attended = x.add(selfAttention(w.at("attn"), layerNorm(w.at("norm1"), x, config.layerNormEps), config));
  const normal = layerNorm(w.at("norm2"), attended, config.layerNormEps);
  const hidden = gelu(linear(w.at("mlp.fc1"), normal, config.intermediateSize));
  return attended.add(linear(w.at("mlp.fc2"), hidden, config.hiddenSize));
}

/** Self-attention with one matrix for queries, keys and values; keys have no bias. x [batch, n, hiddenSize] -> same shape. */
function selfAttention(w: Weights, x: Value, { hiddenSize, numAttentionHeads: heads }: EvaVitConfig): Value {
  const qkv = linear(w.at("qkv"), x, 3 * hiddenSize);
  const [q, k, v] = split(qkv, -1, [hiddenSize, hiddenSize, hiddenSize]) as [Value, Value, Value];
  const query = splitHeads(q.add(w.get("q_bias", [hiddenSize])), heads);
  const value = splitHeads(v.add(w.get("v_bias", [hiddenSize])), heads);
  return linear(w.at("proj"), joinHeads(attention(query, splitHeads(k, heads), value)), hiddenSize);
}
