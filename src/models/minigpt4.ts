/**
 * MiniGPT-4 (Zhu et al., arXiv 2304.10592, section 3): a frozen image encoder, an optional Q-Former, one linear projection, and a frozen
 * LLaMA-family language model, which receives the projected features in place of word embeddings.
 */
import { CLIP, EFFICIENTNET, type ImageSpec } from "../images/preprocess.ts";
import { layerNorm, linear } from "../nn/layers.ts";
import { Weights } from "../nn/weights.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { putRows } from "../tensor/ops/gather.ts";
import { reshape, slice } from "../tensor/ops/layout.ts";
import { native } from "../tensor/quant/quantization.ts";
import { productOf } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { efficientNetCells, efficientNetFeatures, efficientNetWidth } from "./efficientnet.ts";
import { type EvaVitConfig, evaVit } from "./eva-vit.ts";
import { embedTokens, type LlamaConfig } from "./llama.ts";
import { type QFormerConfig, qformer, type Regularizer } from "./qformer.ts";

export type EncoderConfig =
  | ({ readonly type: "eva_vit" } & EvaVitConfig)
  | { readonly type: "efficientnet_lite0"; readonly imageSize: number };

/** The vision tower: image encoder and optional Q-Former. */
export interface VisionConfig {
  readonly encoder: EncoderConfig;
  /** Without a Q-Former, the class token is dropped and four adjacent patches are joined into one token (the Llama 2 version). */
  readonly qformer?: QFormerConfig;
}

export interface MiniGPT4Config extends VisionConfig {
  readonly llm: LlamaConfig;
}

/** Weights of the vision tower and the projection. */
export interface ImageWeights {
  readonly encoder: Weights;
  /** `ln_vision`, `query_tokens` and `Qformer`. */
  readonly qformer: Weights;
  /** `llama_proj`. */
  readonly projection: Weights;
}

/** The weight source of each part. */
export type ImageSources = Readonly<Record<keyof ImageWeights, WeightSource>>;

/** Frozen weights of a graph, in their stored quantization. */
export function imageWeights(graph: Graph, { encoder, qformer, projection }: ImageSources): ImageWeights {
  const at = (source: WeightSource) => new Weights(graph, source, { quantization: native });
  return { encoder: at(encoder), qformer: at(qformer), projection: at(projection) };
}

export interface MiniGPT4Weights extends ImageWeights {
  readonly llm: Weights;
}

/** Patches per image token without a Q-Former. */
const joinedPatches = 4;
/** Epsilon of `ln_vision`. */
const lnVisionEps = 1e-5;

/** Image size and normalization of an encoder. */
export function imageSpec({ type, imageSize }: EncoderConfig): ImageSpec {
  return { ...(type === "eva_vit" ? CLIP : EFFICIENTNET), size: imageSize };
}

/** Shape of an encoder's output for one image. */
export function featureShape(encoder: EncoderConfig): readonly [cells: number, width: number] {
  if (encoder.type === "efficientnet_lite0") return [efficientNetCells(encoder.imageSize), efficientNetWidth];
  return [1 + patches(encoder), encoder.hiddenSize];
}

function patches({ imageSize, patchSize }: EvaVitConfig): number {
  return Math.floor(imageSize / patchSize) ** 2;
}

/** Number of image tokens per image. */
export function tokensPerImage({ encoder, qformer }: VisionConfig): number {
  if (qformer) return qformer.numQueryTokens;
  if (encoder.type !== "eva_vit")
    throw new Error("A model without a Q-Former needs a ViT encoder, whose patches it joins");
  return patches(encoder) / joinedPatches;
}

/**
 * The part of the vision tower before the first trained layer: the encoder without `ln_vision` ("vit"), with it ("encoder"), or also the
 * Q-Former or the joining of patches ("qformer"). Its output is the same in every epoch and can be cached.
 */
export type FrozenDepth = "vit" | "encoder" | "qformer";

/** Shape of one image's frozen features. */
export function frozenShape(config: VisionConfig, depth: FrozenDepth): readonly [tokens: number, width: number] {
  const [cells, width] = featureShape(config.encoder);
  if (depth !== "qformer") return [cells, width];
  return [tokensPerImage(config), config.qformer?.hiddenSize ?? joinedPatches * width];
}

/** Computes frozen features: pixels [images, 3, size, size] -> [images, ...frozenShape]. */
export function frozenFeatures(w: ImageWeights, pixels: Value, config: VisionConfig, depth: FrozenDepth): Value {
  if (depth === "vit") return encode(w, pixels, config);
  const features = imageFeatures(w, pixels, config);
  return depth === "encoder" ? features : resample(w, features, config);
}

/** The input of the Q-Former: pixels [images, 3, size, size] -> [images, cells, width], after `ln_vision` if the model has it. */
export function imageFeatures(w: Omit<ImageWeights, "projection">, pixels: Value, config: VisionConfig): Value {
  return normalizeFeatures(w, encode(w, pixels, config), config, "vit");
}

function encode(w: Pick<ImageWeights, "encoder">, pixels: Value, { encoder }: VisionConfig): Value {
  return encoder.type === "efficientnet_lite0"
    ? efficientNetFeatures(w.encoder, pixels)
    : evaVit(w.encoder, pixels, encoder);
}

/**
 * Applies `ln_vision` to features that have not passed it yet. A ViT always has it; another encoder has it if the Q-Former was trained
 * with it.
 */
export function normalizeFeatures(
  w: Pick<ImageWeights, "qformer">,
  features: Value,
  { encoder }: VisionConfig,
  depth: FrozenDepth,
): Value {
  if (depth !== "vit" || (encoder.type !== "eva_vit" && !w.qformer.has("ln_vision"))) return features;
  return layerNorm(w.qformer.at("ln_vision"), features, lnVisionEps);
}

/** Frozen features [images, ...frozenShape] -> image tokens [images, tokens, hiddenSize]. */
export function imageTokens(
  w: ImageWeights,
  features: Value,
  config: MiniGPT4Config,
  { depth = "encoder", regularize }: { readonly depth?: FrozenDepth; readonly regularize?: Regularizer } = {},
): Value {
  const resampled =
    depth === "qformer" ? features : resample(w, normalizeFeatures(w, features, config, depth), config, regularize);
  return linear(w.projection.at("llama_proj"), resampled, config.llm.hiddenSize);
}

/** The input of the projection: features [images, cells, width] -> [images, tokens, token width]. */
function resample(w: ImageWeights, features: Value, config: VisionConfig, regularize?: Regularizer): Value {
  return config.qformer ? qformer(w.qformer, features, config.qformer, regularize) : joinPatches(features, config);
}

/** Drops the class token and joins adjacent patches: [images, 1 + patches, width] -> [images, patches / 4, 4 * width]. */
function joinPatches(features: Value, config: VisionConfig): Value {
  const [, width] = featureShape(config.encoder);
  return reshape(slice(features, 1, 1), [features.dim(0), tokensPerImage(config), joinedPatches * width]);
}

/** A batch of sequences of words and image tokens. */
export interface MultimodalSequence {
  /** int64 [batch, sequence]; ids at the positions of image tokens are ignored. */
  readonly ids: Value;
  /** Image tokens in the order of their positions, [n, hiddenSize]. */
  readonly imageTokens: Value;
  /** Indices of the image tokens into [batch * sequence], int64 [n]. */
  readonly imageIndices: Value;
}

/** The input of the language model: word embeddings and image tokens, [batch, sequence, hiddenSize]. */
export function embedSequence(
  w: Weights,
  { ids, imageTokens, imageIndices }: MultimodalSequence,
  config: LlamaConfig,
): Value {
  const flat = reshape(ids, [productOf(ids.shape)]);
  const rows = putRows(embedTokens(w, flat, config), imageIndices, imageTokens);
  return reshape(rows, [...ids.shape, config.hiddenSize]);
}
