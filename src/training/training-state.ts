/** The state of a training run: weights and optimizer state by name, and the EMA of the weights. */
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import type { Shape } from "../tensor/shapes.ts";

type Arrays = Record<string, NdArray<"float32">>;

export interface TrainingState {
  /** Completed steps. */
  step: number;
  readonly parameters: Arrays;
  /** AdamW's moments: running means of the gradient and of its square. */
  readonly means: Arrays;
  readonly variances: Arrays;
}

/** The state before the first step. */
export function initialState(parameters: Arrays): TrainingState {
  return { step: 0, parameters, means: zerosLike(parameters), variances: zerosLike(parameters) };
}

/** Zeros of the same names and shapes. */
export function zerosLike(arrays: Readonly<Arrays>): Arrays {
  return Object.fromEntries(
    Object.entries(arrays).map(([name, { shape }]) => [
      name,
      ndarray("float32", shape, new Float32Array(sizeOf(shape))),
    ]),
  );
}

/** Swaps two arrays. */
export function swap(one: Arrays, name: string, other: Arrays, otherName: string): void {
  const array = one[name] as NdArray<"float32">;
  one[name] = other[otherName] as NdArray<"float32">;
  other[otherName] = array;
}

/** Names of the outputs of a training step. */
export const outputName = {
  parameter: (name: string) => `next:${name}`,
  mean: (name: string) => `nextMean:${name}`,
  variance: (name: string) => `nextVariance:${name}`,
  sum: (name: string) => `nextSum:${name}`,
} as const;

/** Whether weight decay applies: as in the original, to parameters of two or more axes. */
export function isMatrix(shape: Shape): boolean {
  return shape.length >= 2;
}

/**
 * Exponential moving average of the trained weights, which generalises better than those of the last step (Polyak &
 * Juditsky, 1992): ema = decay * ema + (1 - decay) * weights after each step. The decay warms up over the first steps.
 */
export class Ema {
  readonly arrays: Arrays;
  private readonly decay: number;

  /** @param arrays initial values, which are copied */
  constructor(arrays: Arrays, decay: number) {
    this.decay = decay;
    this.arrays = Object.fromEntries(
      Object.entries(arrays).map(([name, { shape, data }]) => [name, ndarray("float32", shape, data.slice())]),
    );
  }

  /** @param step number of the step that made `weights`, from 1 */
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
