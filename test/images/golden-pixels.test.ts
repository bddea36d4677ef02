import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readImage } from "../../src/images/decode.ts";
import { CLIP, preprocess } from "../../src/images/preprocess.ts";

/** What decoders of different versions may differ by, in steps of 8 bits: the largest of a channel, and on average. */
const LARGEST = 3;
const MEAN = 0.5;

const golden = join(import.meta.dirname, "../reference/golden");

describe.each(["mha", "gqa"])("images of %s", async (set) => {
  const { images } = JSON.parse(readFileSync(join(golden, set, "goldens.json"), "utf8")) as { images: string[] };
  const tensors = await openSafetensors(join(golden, set, "goldens.safetensors"));
  afterAll(() => tensors.close());

  for (const key of ["pixels", "pixels_224"].filter((name) => tensors.tensors.has(name))) {
    const size = tensors.tensors.get(key)?.shape[3] ?? 0;
    test.each(images.map((name, index) => ({ name, index })))(`$name at ${size} pixels`, async ({ name, index }) => {
      const { shape, data } = preprocess(await readImage(join(golden, set, "images", name)), { size, ...CLIP });
      expect(shape).toEqual([3, size, size]);
      const expected = (await tensors.readFloat32(key)).subarray(index * data.length, (index + 1) * data.length);
      const steps = data.map((value, i) => {
        const std = CLIP.std[Math.floor(i / (size * size))] ?? 0;
        return Math.abs(value - (expected[i] ?? Number.NaN)) * std * 255;
      });
      expect(steps.reduce((sum, step) => sum + step, 0) / steps.length).toBeLessThan(MEAN);
      expect(steps.reduce((most, step) => Math.max(most, step), 0)).toBeLessThan(LARGEST);
    });
  }
});
