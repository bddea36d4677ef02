/** Weights of a test: arrays under names, as a file would give them. */

import { type NdArray, ndarray, sizeOf } from "../../src/tensor/array.ts";
import { Random } from "../../src/tensor/random.ts";
import { denseMatrix, type WeightSource } from "../../src/tensor/weight-source.ts";

export function inMemory(arrays: Readonly<Record<string, NdArray<"float32">>>, path = "memory"): WeightSource {
  return {
    path,
    tensors: new Map(Object.entries(arrays)),
    readFloat32: async (name) => arrays[name]?.data ?? new Float32Array(0),
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}

export function normal(shape: readonly number[], random: Random | number): NdArray<"float32"> {
  const source = typeof random === "number" ? new Random(random) : random;
  return ndarray(
    "float32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => source.normal()),
  );
}
