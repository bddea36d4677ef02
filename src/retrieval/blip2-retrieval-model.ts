/**
 * Retrieval with a Q-Former pre-trained as in BLIP-2 (arXiv 2301.12597, section 3.1): one embedding per query (image-text
 * contrast), a head that scores an image and a text together (image-text matching), and caption likelihoods.
 */
import { join } from "node:path";
import { FeatureCache } from "../data/feature-cache.ts";
import { RequestError } from "../errors.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import { indices } from "../generation/language-model.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import {
  type Blip2Config,
  captionEmbedding,
  generationLogits,
  generationTargets,
  imageEmbeddings,
  matchLogits,
  textArrays,
} from "../models/blip2.ts";
import type { Blip2Folder } from "../models/blip2-folder.ts";
import { featureShape, imageFeatures, imageSpec } from "../models/minigpt4.ts";
import {
  type CrossAttentionCache,
  gatherImages,
  projectImages,
  type QFormerText,
  qformer,
  qformerImageText,
  qformerQueries,
  qformerText,
} from "../models/qformer.ts";
import { crossEntropy } from "../nn/layers.ts";
import { Weights } from "../nn/weights.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { concatFloat32, ndarray, sizeOf } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { reshape } from "../tensor/ops/layout.ts";
import { cleanCaption } from "../tokenizers/prompts.ts";
import { stampFiles } from "./index-file.ts";
import {
  type CandidateImage,
  type CandidatePair,
  imageBatchSize,
  LazySession,
  type MatchScore,
  type ModelFingerprint,
  pixelFeeds,
  pixelInput,
  type RetrievalModel,
} from "./retrieval-model.ts";

/** Texts are cut after this many characters: captions end after 50 words, but one word may have any length. */
const maxTextLength = 2000;
const textBatchSize = 16;
const pairBatchSize = 8;

export interface Blip2RetrievalOptions extends SessionOptions {
  /** Folder that caches the encoder features of images scored by the matching head. @default `features` in the user's cache folder */
  readonly features?: string;
  readonly onMessage?: (message: string) => void;
}

export class Blip2RetrievalModel implements RetrievalModel {
  readonly spec: ImageSpec;
  readonly shape: readonly [number, number];
  readonly fingerprint: ModelFingerprint;
  private readonly folder: Blip2Folder;
  private readonly options: Blip2RetrievalOptions;
  private readonly images: LazySession<"features" | "embeddings">;
  private readonly texts: LazySession<"embeddings">;
  private readonly pairs: LazySession<"logits">;
  private readonly generation: LazySession<"losses">;
  private cache: Promise<FeatureCache> | undefined;
  /** Features of the images of the last call, by id. */
  private recent = new Map<string, Float32Array>();

  /** @param folder closed by `close()` */
  constructor(folder: Blip2Folder, options: Blip2RetrievalOptions = {}) {
    const { config, sources } = folder;
    this.folder = folder;
    this.options = options;
    this.spec = imageSpec(config.encoder);
    this.shape = [config.qformer.numQueryTokens, config.embedDim];
    this.fingerprint = {
      settings: JSON.stringify({ head: "itc", ...config, spec: this.spec }),
      files: [...new Set([sources.encoder.path, sources.qformer.path])],
    };
    const { features, onMessage, ...session } = options;
    const weights = (graph: Graph) => ({
      encoder: new Weights(graph, sources.encoder),
      qformer: new Weights(graph, sources.qformer),
    });
    this.images = new LazySession((graph) => {
      const w = weights(graph);
      const features = imageFeatures(w, pixelInput(graph, config.encoder), config);
      const embeddings = imageEmbeddings(w.qformer, qformer(w.qformer, features, config.qformer), config);
      return { features, embeddings };
    }, session);
    this.texts = new LazySession((graph) => {
      const w = weights(graph).qformer;
      return { embeddings: captionEmbedding(w, qformerText(w, textInput(graph), config.qformer), config) };
    }, session);
    this.pairs = new LazySession((graph) => {
      const w = weights(graph).qformer;
      const joint = qformerImageText(w, pairedCrossAttention(w, config), textInput(graph), config.qformer);
      return { logits: matchLogits(w, joint, config.qformer) };
    }, session);
    this.generation = new LazySession((graph) => {
      const w = weights(graph).qformer;
      const images = pairedCrossAttention(w, config);
      const queries = qformerQueries(w, images, "texts", config.qformer);
      const [targetIndices, targetIds] = ["targetIndices", "targetIds"].map((name) =>
        graph.input(name, "int64", ["targets"]),
      ) as [Value, Value];
      const text = { ...textInput(graph), decId: folder.tokenizer.decId, targetIndices };
      const logits = generationLogits(w, queries, text, config.qformer);
      return { losses: crossEntropy(logits, reshape(targetIds, ["targets", 1])) };
    }, session);
  }

  async embedImages(pixels: readonly Float32Array[], ids?: readonly string[]): Promise<Float32Array> {
    const { features, embeddings } = await this.images.run(pixelFeeds(pixels, this.folder.config.encoder));
    if (ids) await this.cacheFeatures(ids, features.data as Float32Array);
    return embeddings.data as Float32Array;
  }

  async embedTexts(texts: readonly string[]): Promise<Float32Array[]> {
    const [, size] = this.shape;
    const all: Float32Array[] = [];
    for (let start = 0; start < texts.length; start += textBatchSize) {
      const batch = texts.slice(start, start + textBatchSize);
      const { embeddings } = await this.texts.run(this.textFeeds(this.encode(batch)));
      all.push(...batch.map((_, i) => (embeddings.data as Float32Array).slice(i * size, (i + 1) * size)));
    }
    return all;
  }

  match(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<MatchScore[]> {
    return inBatches(pairs, (batch) => this.matchBatch(batch), signal);
  }

  captionLogLikelihoods(pairs: readonly CandidatePair[], signal?: AbortSignal): Promise<number[]> {
    return inBatches(pairs, (batch) => this.likelihoodBatch(batch), signal);
  }

  async close(): Promise<void> {
    for (const session of [this.images, this.texts, this.pairs, this.generation]) await session.close();
    const cache = await this.cache?.catch(() => undefined);
    await cache?.close();
    await this.folder.close();
  }

  private async likelihoodBatch(pairs: readonly CandidatePair[]): Promise<number[]> {
    const { feeds, texts, length } = await this.pairFeeds(pairs);
    const { losses } = await this.generation.run({ ...feeds, ...generationTargets(texts, length) });
    let start = 0;
    return texts.map((ids) => {
      const tokenLosses = (losses.data as Float32Array).subarray(start, start + ids.length - 1);
      start += tokenLosses.length;
      return -tokenLosses.reduce((sum, loss) => sum + loss, 0) / tokenLosses.length;
    });
  }

  /** Feeds of image-text pairs; the features of an image in several pairs are fed once. */
  private async pairFeeds(pairs: readonly CandidatePair[]) {
    const images = [...new Map(pairs.map(({ image }) => [image.id, image])).values()];
    const features = await this.loadFeatures(images);
    const indexById = new Map(images.map(({ id }, i) => [id, i]));
    const shape = featureShape(this.folder.config.encoder);
    const texts = this.encode(pairs.map(({ text }) => text));
    const textFeeds = this.textFeeds(texts);
    const feeds = {
      features: ndarray("float32", [images.length, ...shape], concatFloat32(features)),
      imageOf: indices(
        [pairs.length],
        pairs.map(({ image }) => indexById.get(image.id) as number),
      ),
      ...textFeeds,
    };
    return { feeds, texts, length: textFeeds.textIds.shape[1] as number };
  }

  private async matchBatch(pairs: readonly CandidatePair[]): Promise<MatchScore[]> {
    const { feeds } = await this.pairFeeds(pairs);
    const { logits } = await this.pairs.run(feeds);
    return pairs.map((_, i) => {
      const [mismatch, match] = [logits.data[2 * i], logits.data[2 * i + 1]] as [number, number];
      return { logit: match, probability: 1 / (1 + Math.exp(mismatch - match)) };
    });
  }

  /** Encoder features, from the cache or computed and rounded to float16 as the cache rounds them. */
  private async loadFeatures(images: readonly CandidateImage[]): Promise<Float32Array[]> {
    const cache = await this.featureCache();
    const found = new Map<string, Float32Array>();
    for (const { id } of images) {
      const row = this.recent.get(id) ?? new Float32Array(sizeOf(cache.shape));
      if (this.recent.has(id) || (await cache.read(id, row))) found.set(id, row);
    }
    const missing = images.filter(({ id }) => !found.has(id));
    for (let start = 0; start < missing.length; start += imageBatchSize) {
      const batch = missing.slice(start, start + imageBatchSize);
      const pixels = await Promise.all(batch.map((image) => image.pixels()));
      const { features } = await this.images.run(pixelFeeds(pixels, this.folder.config.encoder));
      const ids = batch.map(({ id }) => id);
      for (const [i, row] of (await this.cacheFeatures(ids, features.data as Float32Array)).entries()) {
        found.set(ids[i] as string, float16ToFloat32(float32ToFloat16(row)));
      }
    }
    this.recent = found;
    return images.map(({ id }) => found.get(id) as Float32Array);
  }

  /** Writes the features of a batch to the cache and returns those of each image. */
  private async cacheFeatures(ids: readonly string[], features: Float32Array): Promise<Float32Array[]> {
    const cache = await this.featureCache();
    const size = sizeOf(cache.shape);
    const rows = ids.map((_, i) => features.subarray(i * size, (i + 1) * size));
    for (const [i, id] of ids.entries()) {
      if (!cache.has(id)) await cache.write(id, rows[i] as Float32Array);
    }
    return rows;
  }

  private featureCache(): Promise<FeatureCache> {
    this.cache ??= this.openCache();
    return this.cache;
  }

  private async openCache(): Promise<FeatureCache> {
    const { features = join(cacheFolder(), "features"), onMessage } = this.options;
    const { encoder } = this.folder.config;
    const files = await stampFiles(this.fingerprint.files);
    const key = JSON.stringify({ depth: "encoder", encoder, spec: this.spec, files });
    return FeatureCache.open({ folder: features, key, shape: featureShape(encoder) }, onMessage);
  }

  private textFeeds(texts: readonly (readonly number[])[]) {
    return textArrays(texts, this.folder.tokenizer.padId);
  }

  /** Tokenizes texts, cleaned like training captions. @throws RequestError if one contains no word */
  private encode(texts: readonly string[]): number[][] {
    const { tokenizer, maxTextLength: maxTokens } = this.folder;
    return texts.map((text) => {
      const caption = cleanCaption(text.slice(0, maxTextLength));
      if (caption === "") throw new RequestError("invalid_request", "The text contains no word to embed.");
      return tokenizer.encode(caption, maxTokens);
    });
  }
}

/** Token ids int64 [texts, length] of "[CLS] text [SEP]", padded where the mask is 0. */
function textInput(graph: Graph): QFormerText {
  const input = (name: string) => graph.input(name, "int64", ["texts", "length"]);
  return { ids: input("textIds"), attentionMask: input("textMask") };
}

/** Keys and values of features [images, cells, width], gathered to one image per text. */
function pairedCrossAttention(w: Weights, { encoder, qformer }: Blip2Config): CrossAttentionCache {
  const features = w.graph.input("features", "float32", ["images", ...featureShape(encoder)]);
  return gatherImages(projectImages(w, features, qformer), w.graph.input("imageOf", "int64", ["texts"]));
}

async function inBatches<T>(
  pairs: readonly CandidatePair[],
  run: (batch: readonly CandidatePair[]) => Promise<T[]>,
  signal?: AbortSignal,
): Promise<T[]> {
  const all: T[] = [];
  for (let start = 0; start < pairs.length; start += pairBatchSize) {
    signal?.throwIfAborted();
    all.push(...(await run(pairs.slice(start, start + pairBatchSize))));
  }
  return all;
}
