/** Image tokens for a language model: the graph from pixels to tokens, and the session that runs it. */
import type { Pixels } from "../images/decode.ts";
import { preprocess } from "../images/preprocess.ts";
import { type ImageWeights, imageFeatures, imageSpec, imageTokens, type MiniGPT4Config } from "../models/minigpt4.ts";
import type { Runner } from "../runtime/runner.ts";
import { ndarray } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";

/** Image tokens of one image: an embedding [hiddenSize] for each position that it takes in the language model's sequence. */
export type ImageTokens = readonly Float32Array[];

export class ImageEncoder implements AsyncDisposable {
  private readonly runner: Runner<"tokens">;
  private readonly config: Pick<MiniGPT4Config, "encoder" | "llm">;

  /** @param runner runs a graph with the outputs of `imageOutputs` */
  constructor(config: Pick<MiniGPT4Config, "encoder" | "llm">, runner: Runner<"tokens">) {
    this.config = config;
    this.runner = runner;
  }

  /** Preprocesses and encodes one image. */
  async encode(image: Pixels): Promise<ImageTokens> {
    const { shape, data } = preprocess(image, imageSpec(this.config.encoder));
    const { tokens } = await this.runner.run({ pixels: ndarray("float32", [1, ...shape], data) });
    const rows = tokens.data as Float32Array;
    const { hiddenSize } = this.config.llm;
    return Array.from({ length: rows.length / hiddenSize }, (_, i) =>
      rows.subarray(i * hiddenSize, (i + 1) * hiddenSize),
    );
  }

  /** Frees the memory of the runtime. */
  close(): Promise<void> {
    return this.runner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Encoder, Q-Former and projection: `pixels` [1, 3, size, size] -> `tokens` [1, tokens, hiddenSize]. One image at a time,
 * because the runtime plans its memory better where all sizes are known.
 */
export function imageOutputs(graph: Graph, weights: ImageWeights, config: MiniGPT4Config): { tokens: Value } {
  const { imageSize } = config.encoder;
  const pixels = graph.input("pixels", "float32", [1, 3, imageSize, imageSize]);
  return { tokens: imageTokens(weights, imageFeatures(weights, pixels, config), config) };
}
