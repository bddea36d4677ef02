/** Bytes to the numbers an image encoder expects. */

import type { Pixels } from "./picture.ts";

/** Mean and standard deviation of red, green and blue, on a scale of 0 to 1. */
export interface Normalisation {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/** What EVA-CLIP, and with it BLIP-2 and MiniGPT-4, was trained with. */
export const CLIP: Normalisation = {
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

/** What EfficientNet-Lite was trained with: (x - 127) / 128 on bytes. */
export const EFFICIENTNET: Normalisation = {
  mean: [127 / 255, 127 / 255, 127 / 255],
  std: [128 / 255, 128 / 255, 128 / 255],
};

/** (x / 255 - mean) / std, channel by channel: `[3, height, width]`, flat. */
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
