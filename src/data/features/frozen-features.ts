/** What is frozen before the first trained layer, as a session of its own that fills the feature cache. */
import {
  type FrozenDepth,
  frozenFeatures,
  frozenShape,
  type ImageWeights,
  type VisionConfig,
} from "../../models/minigpt4.ts";
import { joinFloats, type NdArray, ndarray, sizeOf } from "../../tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../tensor/float16.ts";
import { Graph } from "../../tensor/graph.ts";
import { Session, type SessionOptions } from "../../tensor/session.ts";
import type { FeatureCache } from "./feature-cache.ts";
import type { LoadedPicture } from "./picture-loader.ts";

/** Pictures that go through the encoder side by side; what there is between its layers of more leaves the processor's cache. */
const batch = 4;

export interface FrozenPart {
  readonly config: VisionConfig;
  readonly depth: FrozenDepth;
  /** Weights as constants of a graph. */
  weights(graph: Graph): ImageWeights;
}

export class FrozenFeatures {
  /** Of one picture. */
  readonly shape: readonly number[];
  private readonly part: FrozenPart;
  private readonly cache: FeatureCache | undefined;
  private readonly options: SessionOptions;
  /** Made when the first picture comes that is not in the cache. */
  private session: Promise<Session<"features">> | undefined;

  constructor(part: FrozenPart, cache: FeatureCache | undefined, options: SessionOptions) {
    this.shape = frozenShape(part.config, part.depth);
    this.part = part;
    this.cache = cache;
    this.options = options;
  }

  /** Features of several pictures, [pictures, ...shape]; what had to be computed is kept. */
  async of(pictures: readonly LoadedPicture[]): Promise<NdArray<"float32">> {
    const row = sizeOf(this.shape);
    const data = new Float32Array(pictures.length * row);
    const missing: { readonly pixels: Float32Array; readonly id: string; readonly at: number }[] = [];
    pictures.forEach((picture, i) => {
      if ("features" in picture) data.set(picture.features, i * row);
      else missing.push({ ...picture, at: i * row });
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
    return ndarray("float32", [pictures.length, ...this.shape], data);
  }

  async release(): Promise<void> {
    await (await this.session)?.release();
  }

  private async encode(pictures: readonly Float32Array[]): Promise<Float32Array> {
    this.session ??= this.open();
    const session = await this.session;
    const size = this.part.config.encoder.imageSize;
    const pixels = ndarray("float32", [pictures.length, 3, size, size], joinFloats(pictures));
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
