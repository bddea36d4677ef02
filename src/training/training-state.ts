/** Weights and optimiser state by name, as a training step reads and writes them. */
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import type { Shape } from "../tensor/shapes.ts";

type Arrays = Record<string, NdArray<"float32">>;

export interface TrainingState {
  /** Steps that were taken. */
  step: number;
  readonly parameters: Arrays;
  /** AdamW's running means of the gradient, and of its square. */
  readonly means: Arrays;
  readonly variances: Arrays;
}

/** A state before the first step. */
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

/** Two arrays change places. */
export function exchange(one: Arrays, name: string, other: Arrays, otherName: string): void {
  const array = one[name] as NdArray<"float32">;
  one[name] = other[otherName] as NdArray<"float32">;
  other[otherName] = array;
}

/** Names under which a step's session gives what it computes. */
export const outputName = {
  parameter: (name: string) => `next:${name}`,
  mean: (name: string) => `nextMean:${name}`,
  variance: (name: string) => `nextVariance:${name}`,
  sum: (name: string) => `nextSum:${name}`,
} as const;

/** Weight decay is for matrices: the original leaves out what has fewer than two axes. */
export function isMatrix(shape: Shape): boolean {
  return shape.length >= 2;
}

// A running average of trained weights: it generalises better than the last step's (Polyak & Juditsky, 1992).

type ArraysAverage = Record<string, NdArray<"float32">>;

/** average = decay * average + (1 - decay) * weights after each step; the decay rises to its value in the first steps. */
export class Ema {
  readonly arrays: ArraysAverage;
  private readonly decay: number;

  constructor(arrays: ArraysAverage, decay: number) {
    this.decay = decay;
    this.arrays = Object.fromEntries(
      Object.entries(arrays).map(([name, { shape, data }]) => [name, ndarray("float32", shape, data.slice())]),
    );
  }

  /** @param step steps that were taken, this one included */
  update(weights: ArraysAverage, step: number): void {
    const decay = Math.min(this.decay, step / (step + 9));
    for (const [name, { data: average }] of Object.entries(this.arrays)) {
      const current = weights[name]?.data as Float32Array;
      for (let i = 0; i < average.length; i++) {
        average[i] = (average[i] as number) * decay + (current[i] as number) * (1 - decay);
      }
    }
  }
}
