/**
 * MiniGPT-4 (Zhu et al., arXiv 2304.10592): a frozen image encoder, an optional Q-Former, one linear projection, and a
 * frozen LLaMA-family language model that reads the projected features as if they were words.
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

/** The way of an image up to the Q-Former's output. */
export interface VisionConfig {
  readonly encoder: EncoderConfig;
  /** Without a Q-Former, the class token is dropped and four neighbouring patches become one token (the Llama 2 form). */
  readonly qformer?: QFormerConfig;
}

export interface MiniGPT4Config extends VisionConfig {
  readonly llm: LlamaConfig;
}

/** Weights of what turns an image into image tokens; parts may come from files of their own. */
export interface ImageWeights {
  readonly encoder: Weights;
  /** `ln_vision`, `query_tokens` and `Qformer`. */
  readonly qformer: Weights;
  /** `llama_proj`. */
  readonly projection: Weights;
}

/** Where each part's weights come from. */
export type ImageSources = Readonly<Record<keyof ImageWeights, WeightSource>>;

/** Frozen weights of a graph, with matrices as they are stored. */
export function imageWeights(graph: Graph, { encoder, qformer, projection }: ImageSources): ImageWeights {
  const at = (source: WeightSource) => new Weights(graph, source, { quantization: native });
  return { encoder: at(encoder), qformer: at(qformer), projection: at(projection) };
}

export interface MiniGPT4Weights extends ImageWeights {
  readonly llm: Weights;
}

/** Neighbouring patches that become one token where there is no Q-Former. */
const joinedPatches = 4;
/** Epsilon of `ln_vision`. */
const lnVisionEps = 1e-5;

/** Size and normalisation that an encoder was trained with. */
export function imageSpec({ type, imageSize }: EncoderConfig): ImageSpec {
  return { ...(type === "eva_vit" ? CLIP : EFFICIENTNET), size: imageSize };
}

/** Cells and width of one image's features, as the encoder gives them. */
export function featureShape(encoder: EncoderConfig): readonly [cells: number, width: number] {
  if (encoder.type === "efficientnet_lite0") return [efficientNetCells(encoder.imageSize), efficientNetWidth];
  return [1 + patches(encoder), encoder.hiddenSize];
}

function patches({ imageSize, patchSize }: EvaVitConfig): number {
  return Math.floor(imageSize / patchSize) ** 2;
}

/** Tokens that one image takes in the language model's sequence. */
export function tokensPerImage({ encoder, qformer }: VisionConfig): number {
  if (qformer) return qformer.numQueryTokens;
  if (encoder.type !== "eva_vit") throw new Error("A model without a Q-Former needs a ViT, whose patches it joins");
  return patches(encoder) / joinedPatches;
}

/**
 * How far an image goes through the network before the first trained layer: through the encoder ("vit") without `ln_vision`,
 * with it, or also through the Q-Former (or, without one, the joining of patches). What comes out there is the same in
 * each epoch.
 */
export type FrozenDepth = "vit" | "encoder" | "qformer";

/** Shape of one image's frozen features. */
export function frozenShape(config: VisionConfig, depth: FrozenDepth): readonly [tokens: number, width: number] {
  const [cells, width] = featureShape(config.encoder);
  if (depth !== "qformer") return [cells, width];
  return [tokensPerImage(config), config.qformer?.hiddenSize ?? joinedPatches * width];
}

/** pixels [images, 3, size, size] -> [images, ...frozenShape]. */
export function frozenFeatures(w: ImageWeights, pixels: Value, config: VisionConfig, depth: FrozenDepth): Value {
  if (depth === "vit") return encode(w, pixels, config);
  const features = imageFeatures(w, pixels, config);
  return depth === "encoder" ? features : seenImage(w, features, config);
}

/** What the Q-Former looks at: pixels [images, 3, size, size] -> [images, cells, width], after `ln_vision` where there is one. */
export function imageFeatures(w: Omit<ImageWeights, "projection">, pixels: Value, config: VisionConfig): Value {
  return crossAttend(w, encode(w, pixels, config), config, "vit");
}

function encode(w: Pick<ImageWeights, "encoder">, pixels: Value, { encoder }: VisionConfig): Value {
  return encoder.type === "efficientnet_lite0"
    ? efficientNetFeatures(w.encoder, pixels)
    : evaVit(w.encoder, pixels, encoder);
}

/**
 * Features of a depth before the Q-Former, as it looks at them: through `ln_vision`, if they have not been yet. A ViT always has
 * one; behind another encoder there is one where the Q-Former was trained with it.
 */
export function crossAttend(
  w: Pick<ImageWeights, "qformer">,
  features: Value,
  { encoder }: VisionConfig,
  depth: FrozenDepth,
): Value {
  if (depth !== "vit" || (encoder.type !== "eva_vit" && !w.qformer.has("ln_vision"))) return features;
  return layerNorm(w.qformer.at("ln_vision"), features, lnVisionEps);
}

/** Features [images, ...frozenShape] -> what the language model reads, [images, tokens, hiddenSize]. */
export function imageTokens(
  w: ImageWeights,
  features: Value,
  config: MiniGPT4Config,
  { depth = "encoder", regularize }: { readonly depth?: FrozenDepth; readonly regularize?: Regularizer } = {},
): Value {
  const seen =
    depth === "qformer" ? features : seenImage(w, crossAttend(w, features, config, depth), config, regularize);
  return linear(w.projection.at("llama_proj"), seen, config.llm.hiddenSize);
}

/** What the projection reads: [images, cells, width] -> [images, tokens, width of a token]. */
function seenImage(w: ImageWeights, features: Value, config: VisionConfig, regularize?: Regularizer): Value {
  return config.qformer ? qformer(w.qformer, features, config.qformer, regularize) : joinPatches(features, config);
}

/** The class token dropped, and neighbouring patches joined: [images, 1 + patches, width] -> [images, patches / 4, 4 * width]. */
function joinPatches(features: Value, config: VisionConfig): Value {
  const [, width] = featureShape(config.encoder);
  return reshape(slice(features, 1, 1), [features.dim(0), tokensPerImage(config), joinedPatches * width]);
}

/** A batch of sequences in which some positions are taken by image tokens. */
export interface MultimodalSequence {
  /** int64 [batch, sequence]; the id at an image's position does not matter. */
  readonly ids: Value;
  /** Image tokens in the order of their positions, [n, hiddenSize]. */
  readonly imageTokens: Value;
  /** Where they go: places in the flattened [batch * sequence], int64 [n]. */
  readonly imagePlaces: Value;
}

/** The language model's input: word embeddings, with image tokens at their places, [batch, sequence, hiddenSize]. */
export function embedSequence(
  w: Weights,
  { ids, imageTokens, imagePlaces }: MultimodalSequence,
  config: LlamaConfig,
): Value {
  const flat = reshape(ids, [productOf(ids.shape)]);
  const rows = putRows(embedTokens(w, flat, config), imagePlaces, imageTokens);
  return reshape(rows, [...ids.shape, config.hiddenSize]);
}
