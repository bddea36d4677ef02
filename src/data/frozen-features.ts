/** What is frozen before the first trained layer, as a session of its own that fills the feature cache. */

import { readSpan } from "../files/file.ts";
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

// Images on their way to the frozen encoder: from the feature cache where it has them, else decoded.

/** An image in one of its views: kept features, or the encoder's input. */
export type LoadedImage =
  | { readonly features: Float32Array }
  /** `pixels` [3, size, size], and the id under which the cache keeps what comes of them. */
  | { readonly pixels: Float32Array; readonly id: string };

/** Images whose content is remembered by name, so that their files need not be read again to find their features. */
const remembered = 200_000;

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
    const known = this.ids.get(key);
    const kept = known === undefined ? undefined : await this.kept(known);
    if (kept) return kept;
    const bytes = await readSpan(image);
    const id = imageId(bytes, viewName(view));
    if (this.cache && this.ids.size < remembered) this.ids.set(key, id);
    const features = await this.kept(id);
    if (features) return features;
    return { id, pixels: await this.decoder.decode({ name, bytes, view, spec: this.spec }) };
  }

  private async kept(id: string): Promise<LoadedImage | undefined> {
    if (!this.cache?.has(id)) return undefined;
    const features = new Float32Array(sizeOf(this.cache.shape));
    return (await this.cache.read(id, features)) ? { features } : undefined;
  }
}

/** Images that go through the encoder side by side; what there is between its layers of more leaves the processor's cache. */
const batch = 4;

export interface FrozenPart {
  readonly config: VisionConfig;
  readonly depth: FrozenDepth;
  /** Weights as constants of a graph. */
  weights(graph: Graph): ImageWeights;
}

export class FrozenFeatures {
  /** Of one image. */
  readonly shape: readonly number[];
  private readonly part: FrozenPart;
  private readonly cache: FeatureCache | undefined;
  private readonly options: SessionOptions;
  /** Made when the first image comes that is not in the cache. */
  private session: Promise<Session<"features">> | undefined;

  constructor(part: FrozenPart, cache: FeatureCache | undefined, options: SessionOptions) {
    this.shape = frozenShape(part.config, part.depth);
    this.part = part;
    this.cache = cache;
    this.options = options;
  }

  /** Features of several images, [images, ...shape]; what had to be computed is kept. */
  async of(images: readonly LoadedImage[]): Promise<NdArray<"float32">> {
    const row = sizeOf(this.shape);
    const data = new Float32Array(images.length * row);
    const missing: { readonly pixels: Float32Array; readonly id: string; readonly at: number }[] = [];
    images.forEach((image, i) => {
      if ("features" in image) data.set(image.features, i * row);
      else missing.push({ ...image, at: i * row });
    });
    for (let start = 0; start < missing.length; start += batch) {
      const part = missing.slice(start, start + batch);
      const features = await this.encode(part.map(({ pixels }) => pixels));
      for (const [i, { id, at }] of part.entries()) {
        const values = features.subarray(i * row, (i + 1) * row);
        await this.cache?.write(id, values);
        // What will come from the cache later is rounded: let it be the same from the first time on.
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
