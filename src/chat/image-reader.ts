/** Pictures as a language model reads them: encoder, Q-Former and projection in one session. */
import { type PictureLimits, readPicture } from "../images/picture.ts";
import { type ImageSpec, preprocess } from "../images/preprocess.ts";
import { type ImageWeights, imageFeatures, imageSpec, imageTokens, type MiniGPT4Config } from "../models/minigpt4.ts";
import { ndarray } from "../tensor/array.ts";
import type { Graph } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";

/** Image tokens of one picture: one embedding [hiddenSize] for each position in the language model's sequence. */
export type ImageTokens = readonly Float32Array[];

export class ImageReader {
  private readonly session: Session<"tokens">;
  private readonly spec: ImageSpec;
  private readonly hiddenSize: number;

  private constructor(session: Session<"tokens">, config: MiniGPT4Config) {
    this.session = session;
    this.spec = imageSpec(config.encoder);
    this.hiddenSize = config.llm.hiddenSize;
  }

  /** @param weights values of `graph`, which must hold nothing else */
  static async create(
    graph: Graph,
    weights: ImageWeights,
    config: MiniGPT4Config,
    options: SessionOptions = {},
  ): Promise<ImageReader> {
    const { imageSize } = config.encoder;
    const pixels = graph.input("pixels", "float32", ["images", 3, imageSize, imageSize]);
    const tokens = imageTokens(weights, imageFeatures(weights, pixels, config), config);
    return new ImageReader(await Session.create(graph, { tokens }, options), config);
  }

  /** @param source a path, or the bytes of an encoded picture */
  async read(source: string | Uint8Array, limits: PictureLimits = {}): Promise<ImageTokens> {
    const { shape, data } = preprocess(await readPicture(source, limits), this.spec);
    const { tokens } = await this.session.run({ pixels: ndarray("float32", [1, ...shape], data) });
    const rows = tokens.data as Float32Array;
    const { hiddenSize } = this;
    return Array.from({ length: rows.length / hiddenSize }, (_, i) =>
      rows.subarray(i * hiddenSize, (i + 1) * hiddenSize),
    );
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
