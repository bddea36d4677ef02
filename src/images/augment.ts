/** Changed copies of a picture, for training. What to change is drawn by the caller, so that a run can be repeated. */

import type { Pixels } from "./picture.ts";

/** A rectangle in fractions of the picture: `left` and `top` from 0, `left + width` and `top + height` to 1. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** The picture as a mirror shows it: left and right exchanged. */
export function mirror({ width, height, data }: Pixels): Pixels {
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
 * What lies inside the box, rounded to whole pixels, at least one in each direction.
 * @throws RangeError if the box leaves the picture or is empty
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

/** First and last + 1 pixel of a fraction of `size`. */
function span(start: number, length: number, size: number): [number, number] {
  const slack = 1e-9;
  if (!(start >= 0 && length > 0 && start + length <= 1 + slack)) {
    throw new RangeError(`A crop from ${start} with length ${length} does not lie between 0 and 1`);
  }
  const first = Math.min(Math.round(start * size), size - 1);
  return [first, Math.max(first + 1, Math.min(size, Math.round((start + length) * size)))];
}
