/** From a decoded picture to the input of an image encoder. */

import type { NdArray } from "../tensor/array.ts";
import { ndarray } from "../tensor/array.ts";
import { type Normalisation, toTensor } from "./normalise.ts";
import type { Pixels } from "./picture.ts";
import { resize } from "./resize.ts";

/** What an image encoder expects: a square of `size` pixels, normalised. */
export interface ImageSpec extends Normalisation {
  readonly size: number;
}

/** Resizes (without keeping the aspect ratio, as the original does) and normalises: `[3, size, size]`. */
export function preprocess(pixels: Pixels, spec: ImageSpec): NdArray<"float32"> {
  const data = toTensor(resize(pixels, spec.size, spec.size), spec);
  return ndarray("float32", [3, spec.size, spec.size], data);
}
