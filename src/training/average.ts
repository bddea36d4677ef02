/** A running average of trained weights: it generalises better than the last step's (Polyak & Juditsky, 1992). */
import { type NdArray, ndarray } from "../tensor/array.ts";

type Arrays = Record<string, NdArray<"float32">>;

/** average = decay * average + (1 - decay) * weights after each step; the decay rises to its value in the first steps. */
export class WeightAverage {
  readonly arrays: Arrays;
  private readonly decay: number;

  constructor(arrays: Arrays, decay: number) {
    this.decay = decay;
    this.arrays = Object.fromEntries(
      Object.entries(arrays).map(([name, { shape, data }]) => [name, ndarray("float32", shape, data.slice())]),
    );
  }

  /** @param step steps that were taken, this one included */
  update(weights: Arrays, step: number): void {
    const decay = Math.min(this.decay, step / (step + 9));
    for (const [name, { data: average }] of Object.entries(this.arrays)) {
      const current = weights[name]?.data as Float32Array;
      for (let i = 0; i < average.length; i++) {
        average[i] = (average[i] as number) * decay + (current[i] as number) * (1 - decay);
      }
    }
  }
}
