import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FeatureCache, imageId } from "../../src/data/feature-cache.ts";
import { FrozenFeatures, type FrozenPart, type LoadedImage } from "../../src/data/frozen-features.ts";
import { sizeOf } from "../../src/tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../src/tensor/float16.ts";
import { Random } from "../../src/tensor/random.ts";
import { type ModelParts, openParts } from "../../src/training/parts.ts";
import { readMiniGPT4Recipe } from "../../src/training/recipe.ts";
import { writeRecipe } from "../helpers/walls.ts";

const root = mkdtempSync(join(tmpdir(), "frozen-features-"));
let parts: ModelParts;

beforeAll(async () => {
  parts = await openParts(await readMiniGPT4Recipe(await writeRecipe(root)));
});

afterAll(async () => {
  await parts.close();
  rmSync(root, { recursive: true, force: true, maxRetries: 3 });
});

/** Noise instead of an image. */
function noise(i: number): { pixels: Float32Array; id: string } {
  const random = new Random(i);
  const { imageSize } = parts.config.encoder;
  const pixels = Float32Array.from({ length: 3 * imageSize * imageSize }, () => random.normal());
  return { pixels, id: imageId(Uint8Array.of(i)) };
}

const openCache = async (features: { readonly shape: readonly number[] }, name: string) =>
  FeatureCache.open({ folder: join(root, name), key: name, shape: features.shape });

/** Rows of the result, one an image. */
async function rowsOf(features: FrozenFeatures, images: readonly LoadedImage[]): Promise<Float32Array[]> {
  const { shape, data } = await features.compute(images);
  expect(shape).toEqual([images.length, ...features.shape]);
  const row = sizeOf(features.shape);
  return images.map((_, i) => data.slice(i * row, (i + 1) * row));
}

/** Counts how often the encoder is compiled. */
function watched(): FrozenPart & { compiled: number } {
  const part = {
    ...parts.frozen,
    compiled: 0,
    weights(graph: Parameters<FrozenPart["weights"]>[0]) {
      part.compiled++;
      return parts.frozen.weights(graph);
    },
  };
  return part;
}

test("computed features are cached and read back bit for bit", async () => {
  const bare = new FrozenFeatures(parts.frozen, undefined, {});
  const cache = await openCache(bare, "kept");
  const features = new FrozenFeatures(parts.frozen, cache, {});
  const images = [1, 2, 3].map(noise);
  const computed = await rowsOf(features, images);
  expect(cache.size).toBe(3);
  await cache.close();
  const later = await openCache(bare, "kept");
  for (const [i, { id }] of images.entries()) {
    const row = new Float32Array(sizeOf(features.shape));
    expect(await later.read(id, row)).toBe(true);
    expect(row).toEqual(computed[i]);
  }
  // Rounded once as the cache keeps them; without one they are not.
  const exact = await rowsOf(bare, images);
  for (const [i, row] of exact.entries()) {
    expect(float16ToFloat32(float32ToFloat16(row))).toEqual(computed[i]);
    expect(row).not.toEqual(computed[i]);
  }
  expect(new Set(computed.map((row) => row.join())).size).toBe(3);
  await later.close();
  await features.close();
  await bare.close();
});

test("computes only missing features, and keeps the order of images", async () => {
  const part = watched();
  const features = new FrozenFeatures(part, undefined, {});
  const row = sizeOf(features.shape);
  const known = (i: number): LoadedImage => ({ features: new Float32Array(row).fill(i) });
  expect(await rowsOf(features, [known(1), known(2)])).toEqual([1, 2].map((i) => new Float32Array(row).fill(i)));
  expect(part.compiled).toBe(0);
  const [one, two] = await rowsOf(features, [noise(1), noise(2)]);
  expect(await rowsOf(features, [known(5), noise(2), known(6), known(7), noise(1)])).toEqual([
    new Float32Array(row).fill(5),
    two,
    new Float32Array(row).fill(6),
    new Float32Array(row).fill(7),
    one,
  ]);
  expect(part.compiled).toBe(1);
  await features.close();
});

test("features do not depend on the batch", async () => {
  const features = new FrozenFeatures(parts.frozen, undefined, {});
  const images = Array.from({ length: 35 }, (_, i) => noise(i));
  const together = await rowsOf(features, images);
  for (const i of [0, 15, 16, 31, 32, 34]) {
    const [alone] = await rowsOf(features, [images[i] as LoadedImage]);
    expect(alone).toEqual(together[i]);
  }
  expect(await rowsOf(features, [])).toEqual([]);
  await features.close();
});

test("closing without a session is a no-op", async () => {
  await new FrozenFeatures(parts.frozen, undefined, {}).close();
});
