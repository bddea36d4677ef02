/** Images as a language model reads them: one session, and the pixels that it is fed with. */
import type { Pixels } from "../images/decode.ts";
import { preprocess } from "../images/preprocess.ts";
import { imageSpec, type MiniGPT4Config } from "../models/minigpt4.ts";
import type { Runner } from "../runtime/runner.ts";
import { ndarray } from "../tensor/array.ts";

/** Image tokens of one image: one embedding [hiddenSize] for each position in the language model's sequence. */
export type ImageTokens = readonly Float32Array[];

export class ImageEncoder {
  private readonly runner: Runner<"tokens">;
  private readonly config: Pick<MiniGPT4Config, "encoder" | "llm">;

  /** @param runner encoder, Q-Former and projection: `pixels` [images, 3, size, size] -> `tokens` [images, tokens, hiddenSize] */
  constructor(config: Pick<MiniGPT4Config, "encoder" | "llm">, runner: Runner<"tokens">) {
    this.config = config;
    this.runner = runner;
  }

  async encode(image: Pixels): Promise<ImageTokens> {
    const { shape, data } = preprocess(image, imageSpec(this.config.encoder));
    const { tokens } = await this.runner.run({ pixels: ndarray("float32", [1, ...shape], data) });
    const rows = tokens.data as Float32Array;
    const { hiddenSize } = this.config.llm;
    return Array.from({ length: rows.length / hiddenSize }, (_, i) =>
      rows.subarray(i * hiddenSize, (i + 1) * hiddenSize),
    );
  }

  close(): Promise<void> {
    return this.runner.close();
  }
}
