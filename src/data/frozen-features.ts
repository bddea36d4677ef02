/** Features of the frozen layers: loads images, or their features from the cache, and computes missing features in a session of its own. */

import { readBytes } from "../files/file.ts";
import type { ImageSpec } from "../images/preprocess.ts";
import {
  type FrozenDepth,
  frozenFeatures,
  frozenShape,
  type ImageWeights,
  type VisionConfig,
} from "../models/minigpt4.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import { concatFloat32, type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../tensor/float16.ts";
import { Graph } from "../tensor/graph.ts";
import type { ImageTextPair } from "./dataset.ts";
import { type Decoder, type View, viewName } from "./decoder.ts";
import { type FeatureCache, imageId } from "./feature-cache.ts";

/** A view of an image: its cached features, or the encoder's input. */
export type LoadedImage =
  | { readonly features: Float32Array }
  /** Pixel values [3, size, size], and the id under which the cache stores their features. */
  | { readonly pixels: Float32Array; readonly id: string };

/** Number of images whose ids are kept by name, so that cached features are found without reading the file again. */
const maxKnownIds = 200_000;

/** Loads images from the feature cache if it has them, else decodes them. */
export class ImageLoader {
  private readonly spec: ImageSpec;
  private readonly decoder: Decoder;
  private readonly cache: FeatureCache | undefined;
  private readonly ids = new Map<string, string>();

  constructor(spec: ImageSpec, decoder: Decoder, cache?: FeatureCache) {
    this.spec = spec;
    this.decoder = decoder;
    this.cache = cache;
  }

  /** @throws Error naming the image if it cannot be read */
  async load({ name, image }: ImageTextPair, view: View): Promise<LoadedImage> {
    const key = `${name} ${viewName(view)}`;
    const knownId = this.ids.get(key);
    const known = knownId === undefined ? undefined : await this.readCached(knownId);
    if (known) return known;
    const bytes = await readBytes(image);
    const id = imageId(bytes, viewName(view));
    if (this.cache && this.ids.size < maxKnownIds) this.ids.set(key, id);
    const cached = await this.readCached(id);
    if (cached) return cached;
    return { id, pixels: await this.decoder.decode({ name, bytes, view, spec: this.spec }) };
  }

  private async readCached(id: string): Promise<LoadedImage | undefined> {
    if (!this.cache?.has(id)) return undefined;
    const features = new Float32Array(sizeOf(this.cache.shape));
    return (await this.cache.read(id, features)) ? { features } : undefined;
  }
}

/** Images per forward pass; the activations of more do not fit into the CPU cache. */
const batchSize = 4;

export interface FrozenPart {
  readonly config: VisionConfig;
  readonly depth: FrozenDepth;
  /** Adds the weights to a graph as constants. */
  weights(graph: Graph): ImageWeights;
}

export class FrozenFeatures {
  /** Shape of one image's features. */
  readonly shape: readonly number[];
  private readonly part: FrozenPart;
  private readonly cache: FeatureCache | undefined;
  private readonly options: SessionOptions;
  /** Created for the first image that is not in the cache. */
  private session: Promise<Session<"features">> | undefined;

  constructor(part: FrozenPart, cache: FeatureCache | undefined, options: SessionOptions) {
    this.shape = frozenShape(part.config, part.depth);
    this.part = part;
    this.cache = cache;
    this.options = options;
  }

  /** Features [images, ...shape]; computed ones are added to the cache. */
  async compute(images: readonly LoadedImage[]): Promise<NdArray<"float32">> {
    const row = sizeOf(this.shape);
    const data = new Float32Array(images.length * row);
    const missing: { readonly pixels: Float32Array; readonly id: string; readonly at: number }[] = [];
    images.forEach((image, i) => {
      if ("features" in image) data.set(image.features, i * row);
      else missing.push({ ...image, at: i * row });
    });
    for (let start = 0; start < missing.length; start += batchSize) {
      const batch = missing.slice(start, start + batchSize);
      const features = await this.encode(batch.map(({ pixels }) => pixels));
      for (const [i, { id, at }] of batch.entries()) {
        const values = features.subarray(i * row, (i + 1) * row);
        await this.cache?.write(id, values);
        // Round as the cache does, so that the first epoch sees the same values as later ones.
        data.set(this.cache ? float16ToFloat32(float32ToFloat16(values)) : values, at);
      }
    }
    return ndarray("float32", [images.length, ...this.shape], data);
  }

  async close(): Promise<void> {
    await (await this.session)?.close();
  }

  private async encode(images: readonly Float32Array[]): Promise<Float32Array> {
    this.session ??= this.open();
    const session = await this.session;
    const size = this.part.config.encoder.imageSize;
    const pixels = ndarray("float32", [images.length, 3, size, size], concatFloat32(images));
    return (await session.run({ pixels })).features.data as Float32Array;
  }

  private open(): Promise<Session<"features">> {
    const { config, depth, weights } = this.part;
    const graph = new Graph();
    const { imageSize } = config.encoder;
    const pixels = graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
    const features = frozenFeatures(weights(graph), pixels, config, depth);
    return Session.create(graph, { features }, this.options);
  }
}
