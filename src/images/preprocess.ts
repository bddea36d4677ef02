/** Preprocessing of decoded images for an image encoder, and augmentation for training. */

import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Pixels } from "./decode.ts";
import { resize } from "./resize.ts";

/** Mean and standard deviation of red, green and blue, for values from 0 to 1. */
export interface Normalisation {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/** Normalisation of CLIP, which EVA-CLIP, BLIP-2 and MiniGPT-4 use. */
export const CLIP: Normalisation = {
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

/** Normalisation of EfficientNet-Lite: (x - 127) / 128 for bytes. */
export const EFFICIENTNET: Normalisation = {
  mean: [127 / 255, 127 / 255, 127 / 255],
  std: [128 / 255, 128 / 255, 128 / 255],
};

/** Normalises pixels to (x / 255 - mean) / std. @returns values [3, height, width] */
export function toTensor({ width, height, data }: Pixels, { mean, std }: Normalisation): Float32Array {
  const area = width * height;
  const out = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const scale = 1 / (255 * (std[channel] ?? 1));
    const shift = (mean[channel] ?? 0) / (std[channel] ?? 1);
    const plane = out.subarray(channel * area, (channel + 1) * area);
    for (let i = 0; i < area; i++) plane[i] = (data[i * 3 + channel] as number) * scale - shift;
  }
  return out;
}

/** Input of an image encoder: a square of `size` x `size` pixels, normalised. */
export interface ImageSpec extends Normalisation {
  readonly size: number;
}

/** Resizes to a square, without keeping the aspect ratio (as in the original), and normalises. @returns [3, size, size] */
export function preprocess(pixels: Pixels, spec: ImageSpec): NdArray<"float32"> {
  const data = toTensor(resize(pixels, spec.size, spec.size), spec);
  return ndarray("float32", [3, spec.size, spec.size], data);
}

/** A rectangle in fractions of the image: `left` and `top` from 0, `left + width` and `top + height` to 1. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Flips an image left to right. */
export function horizontalFlip({ width, height, data }: Pixels): Pixels {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (y * width + x) * 3;
      out.set(data.subarray(from, from + 3), (y * width + (width - 1 - x)) * 3);
    }
  }
  return { width, height, data: out };
}

/**
 * Crops an image to a box, rounded to whole pixels, at least one in each direction.
 * @throws RangeError if the box is empty or not inside the image
 */
export function crop({ width, height, data }: Pixels, box: Box): Pixels {
  const [left, right] = span(box.left, box.width, width);
  const [top, bottom] = span(box.top, box.height, height);
  const out = new Uint8Array((right - left) * (bottom - top) * 3);
  for (let y = top; y < bottom; y++) {
    out.set(data.subarray((y * width + left) * 3, (y * width + right) * 3), (y - top) * (right - left) * 3);
  }
  return { width: right - left, height: bottom - top, data: out };
}

/** First pixel, and the one after the last, of a fraction of `size`. */
function span(start: number, length: number, size: number): [number, number] {
  const slack = 1e-9;
  if (!(start >= 0 && length > 0 && start + length <= 1 + slack)) {
    throw new RangeError(`the crop from ${start} with length ${length} is not inside 0 to 1`);
  }
  const first = Math.min(Math.round(start * size), size - 1);
  return [first, Math.max(first + 1, Math.min(size, Math.round((start + length) * size)))];
}
