/** Data sets of a test: parts that list pairs without any file. */
import type { Dataset, ImageTextPair, Part } from "../../src/data/dataset.ts";

export function pairOf(name: string): ImageTextPair {
  return { name, image: { path: name }, texts: [`This is ${name}.`] };
}

/** A part of `size` pairs, named `PATH/0` and so on. */
export function partOf(path: string, size: number): Part {
  const pairs = Array.from({ length: size }, (_, i) => pairOf(`${path}/${i}`));
  return { path, read: async () => ({ pairs, invalid: [] }) };
}

/** A data set whose parts have these sizes. */
export function datasetOf(sizes: readonly number[]): Dataset {
  return { format: "memory", parts: sizes.map((size, i) => partOf(`part${i}`, size)) };
}
