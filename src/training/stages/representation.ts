/**
 * The losses of BLIP-2's first pre-training stage (arXiv 2301.12597, section 3.1): image-text contrastive learning (ITC),
 * image-text matching with hard negatives (ITM), and image-grounded text generation (ITG). The queries attend to the images
 * once for contrast and generation; matching uses the same keys and values.
 */
import {
  type Blip2Config,
  captionEmbedding,
  generationLogits,
  imageEmbeddings,
  matchLogits,
  similarities,
} from "../../models/blip2.ts";
import {
  type CrossAttentionCache,
  gatherImages,
  projectImages,
  type QFormerText,
  type QueryPass,
  qformerImageText,
  qformerQueries,
  qformerText,
  type Regularizer,
} from "../../models/qformer.ts";
import { crossEntropy } from "../../nn/layers.ts";
import type { Weights } from "../../nn/weights.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import { detach, log } from "../../tensor/ops/elementwise.ts";
import { gather } from "../../tensor/ops/gather.ts";
import { concat, expand, reshape, transpose } from "../../tensor/ops/layout.ts";
import { argMax, reduceMean, reduceSum, softmax } from "../../tensor/ops/reduce.ts";
import { type Dim, mulDims } from "../../tensor/shapes.ts";

export const representationLosses = ["itc", "itm", "itg"] as const;
export type RepresentationLoss = (typeof representationLosses)[number];

/** Label smoothing of contrast and generation, as in BLIP-2. */
const labelSmoothing = 0.1;
/** Added to each probability of a negative, so that none is 0, as in BLIP-2's code. */
const minProbability = 1e-4;

export interface RepresentationOptions {
  /** The losses to add up. @default all */
  readonly losses?: readonly RepresentationLoss[];
  /** The token before a text that is generated. */
  readonly decId: number;
  readonly regularize?: Regularizer;
}

export interface Representation {
  /** float32 []: the sum of the losses. */
  readonly loss: Value;
  /** Each loss separately. */
  readonly terms: Readonly<Partial<Record<RepresentationLoss, Value>>>;
  /** The embeddings of contrast; undefined without it. */
  readonly contrast: Contrast | undefined;
  /** [3 * images, 2]: pairs that belong together, then texts with another image, then images with another text. */
  readonly matchLogits: Value | undefined;
}

interface Contrast extends Embedded {
  /** Similarities divided by the temperature, [images, images]. */
  readonly similarity: Value;
}

/** Embeddings of images [images, numQueryTokens, embedDim] and their texts [images, embedDim] in one space. */
export interface Embedded {
  readonly images: Value;
  readonly captions: Value;
}

/** Inputs for the embeddings of the other micro-batches of a step. */
export const embeddedNames = { images: "otherImages", captions: "otherCaptions" } as const;

/** Inputs of a batch: texts int64 [images, length], [CLS] text [SEP], padded where the mask is 0. */
function textInputs(graph: Graph): QFormerText {
  const input = (name: string) => graph.input(name, "int64", ["images", "length"]);
  return { ids: input("textIds"), attentionMask: input("textMask") };
}

/**
 * The losses of a batch of images, each with a text. The losses of the micro-batches of a step add up.
 *
 * Inputs besides texts and features: `share` [], the images of the batch as a share of the step's, and `places` [images, 1], 0, 1, 2 ...; for
 * ITC `otherPlaces` [others, 1], which continue from there, and the embeddings of the other micro-batches; for ITM `captionNoise` and `imageNoise`
 * [images, images] (see `drawNegatives`); for ITG `targetIndices` and `targetIds` [targets], places in [images * length], and `targetShare` [].
 *
 * @param features float32 [images, cells, encoderWidth], the input of cross-attention
 */
export function representation(
  w: Weights,
  features: Value,
  config: Blip2Config,
  { losses = representationLosses, decId, regularize }: RepresentationOptions,
): Representation {
  const { graph } = w;
  const text = textInputs(graph);
  const share = graph.input("share", "float32", []);
  const places = graph.input("places", "int64", ["images", 1]);
  const memory = projectImages(w, features, config.qformer);
  const images = features.dim(0);
  const uses = (name: RepresentationLoss) => losses.includes(name);
  const queries =
    uses("itc") || uses("itg") ? qformerQueries(w, memory, images, config.qformer, regularize) : undefined;
  const terms: Partial<Record<RepresentationLoss, Value>> = {};
  let contrast: Contrast | undefined;
  let logits: Value | undefined;
  if (uses("itc") && queries) {
    const own = embed(w, queries, text, config, regularize);
    const temperature = w.get("temp", []);
    contrast = { ...own, similarity: similarities(own.images, own.captions).div(temperature) };
    terms.itc = contrastiveLoss(own, temperature, places, share);
  }
  if (uses("itm")) {
    logits = matching(w, memory, text, places, config, contrast?.similarity);
    terms.itm = matchingLoss(logits, images).mul(share);
  }
  if (uses("itg") && queries) terms.itg = generationLoss(w, queries, text, config, decId, regularize);
  const loss = Object.values(terms).reduce((sum, term) => sum.add(term));
  return { loss, terms, contrast, matchLogits: logits };
}

/** The embeddings of a batch without a loss, for the other micro-batches of its step. Inputs as in `representation`. */
export function embedBatch(w: Weights, features: Value, config: Blip2Config, regularize?: Regularizer): Embedded {
  const memory = projectImages(w, features, config.qformer);
  const queries = qformerQueries(w, memory, features.dim(0), config.qformer, regularize);
  return embed(w, queries, textInputs(w.graph), config, regularize);
}

function embed(
  w: Weights,
  { hidden }: QueryPass,
  text: QFormerText,
  config: Blip2Config,
  regularize?: Regularizer,
): Embedded {
  const words = qformerText(w, text, config.qformer, regularize);
  return { images: imageEmbeddings(w, hidden, config), captions: captionEmbedding(w, words, config) };
}

/**
 * The loss of the whole step, differentiated with respect to this batch's embeddings only (gradient caching: Gao et al., arXiv 2101.06983):
 * the gradients of all micro-batches add up to that of one large batch, and so does the reported loss.
 */
function contrastiveLoss(own: Embedded, temperature: Value, places: Value, share: Value): Value {
  const { graph } = share;
  const [, queries, size] = own.images.shape as [unknown, number, number];
  const images = graph.input(embeddedNames.images, "float32", ["others", queries, size]);
  const captions = graph.input(embeddedNames.captions, "float32", ["others", size]);
  const all = concat([places, graph.input("otherPlaces", "int64", ["others", 1])], 0);
  // Every micro-batch differentiates the temperature, so each takes its share.
  const shared = temperature.mul(share).add(detach(temperature).mul(share.mul(-1).add(1)));
  const similarity = similarities(concat([own.images, images], 0), concat([own.captions, captions], 0)).div(shared);
  const toTexts = crossEntropy(similarity, all, labelSmoothing);
  const toImages = crossEntropy(transpose(similarity, [1, 0]), all, labelSmoothing);
  const loss = reduceMean(toTexts.add(toImages), [0, 1], { keep: false }).mul(0.5);
  // The value is this batch's share of the step's loss; the gradient is that of the whole loss.
  return loss.sub(detach(loss).mul(share.mul(-1).add(1)));
}

/** Logits [3 * images, 2] of pairs as they belong together, of texts with a wrong image, and of images with a wrong text. */
function matching(
  w: Weights,
  memory: CrossAttentionCache,
  text: QFormerText,
  places: Value,
  { qformer }: Blip2Config,
  similarity: Value | undefined,
): Value {
  const wrongImage = drawNegatives("captionNoise", w.graph, similarity && transpose(similarity, [1, 0]));
  const wrongText = drawNegatives("imageNoise", w.graph, similarity);
  const own = reshape(places, wrongText.shape);
  const imageOf = concat([own, wrongImage, own], 0);
  const textOf = concat([own, own, wrongText], 0);
  const pairs = { ids: gather(text.ids, textOf), attentionMask: gather(text.attentionMask, textOf) };
  return matchLogits(w, qformerImageText(w, gatherImages(memory, imageOf), pairs, qformer), qformer);
}

/**
 * Samples a column for each row from the softmax of the row (hard negatives). The noise is Gumbel noise, with which the argmax is a
 * sample (Maddison et al., arXiv 1611.00712), or `masked` where a column must not be sampled. Without contrast, the distribution is
 * uniform.
 *
 * @returns int64 [images]
 */
export function drawNegatives(name: string, graph: Graph, similarity: Value | undefined): Value {
  const noise = graph.input(name, "float32", ["images", "images"]);
  return argMax(similarity ? log(softmax(detach(similarity)).add(minProbability)).add(noise) : noise);
}

/** The mean over pairs; the first third are matching pairs. */
function matchingLoss(logits: Value, images: Dim): Value {
  const { graph } = logits;
  const matching = expand(reshape(graph.integers([1]), [1, 1]), [images, 1]);
  const wrong = expand(reshape(graph.integers([0]), [1, 1]), [mulDims(2, images), 1]);
  return reduceMean(crossEntropy(logits, concat([matching, wrong], 0)), [0, 1], { keep: false });
}

/** The text after [DEC], each token from the queries and the previous ones; the mean over all tokens of the step. */
function generationLoss(
  w: Weights,
  queries: QueryPass,
  text: QFormerText,
  { qformer }: Blip2Config,
  decId: number,
  regularize?: Regularizer,
): Value {
  const { graph } = w;
  const [targetIndices, targetIds] = ["targetIndices", "targetIds"].map((name) =>
    graph.input(name, "int64", ["targets"]),
  ) as [Value, Value];
  const logits = generationLogits(w, queries, { ...text, decId, targetIndices }, qformer, regularize);
  const losses = crossEntropy(logits, reshape(targetIds, ["targets", 1]), labelSmoothing);
  return reduceSum(losses, [0, 1], { keep: false }).mul(graph.input("targetShare", "float32", []));
}
