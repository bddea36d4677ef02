/** The validation loss: that of samples which are never trained on. */
import { type Feeds, type StageValidation, stepRandom } from "./stages/stage.ts";
import type { TrainingData } from "./training-data.ts";

/** The parts of `TrainingData` that validation uses. */
export interface ValidationData extends Pick<TrainingData, "load" | "validation"> {
  readonly frozen: Pick<TrainingData["frozen"], "compute">;
}

export class Validation {
  private readonly stage: StageValidation;
  private readonly data: ValidationData;
  private readonly seed: number;

  constructor(stage: StageValidation, data: ValidationData, seed: number) {
    this.stage = stage;
    this.data = data;
    this.seed = seed;
  }

  /**
   * The mean loss over all validation samples. Whatever is drawn, such as negatives, is the same at each call.
   *
   * @param losses the losses of a batch
   * @throws Error if no image can be read, or all texts are empty
   */
  async measure(losses: (batch: Feeds) => Promise<Float32Array>): Promise<number> {
    const { batchSize } = this.stage;
    const { validation: samples } = this.data;
    const random = stepRandom(this.seed, 0);
    let sum = 0;
    let count = 0;
    for (let start = 0; start < samples.length; start += batchSize) {
      const loaded = await this.data.load(samples.slice(start, start + batchSize));
      if (loaded.length === 0) continue;
      const { weight, feeds } = this.stage.compose(loaded, random);
      if (weight === 0) continue;
      const features = await this.data.frozen.compute(loaded.map(({ image }) => image));
      const batchLosses = await losses(feeds(features));
      for (const loss of batchLosses) sum += loss * (weight / batchLosses.length);
      count += weight;
    }
    if (count > 0) return sum / count;
    throw new Error("Validation failed: none of the validation images can be read, or all their texts are empty");
  }
}
