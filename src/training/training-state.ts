/** Weights and optimiser state by name, as a training step reads and writes them. */
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import type { Shape } from "../tensor/dims.ts";

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
