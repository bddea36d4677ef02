import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, expect, test } from "vitest";
import { decodeImage, originalView, startDecoder, viewName } from "../../src/data/decoder.ts";
import { FeatureCache, imageId } from "../../src/data/feature-cache.ts";
import { ImageLoader } from "../../src/data/frozen-features.ts";

const root = mkdtempSync(join(tmpdir(), "image-loader-"));
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 3 }));

const spec = { size: 8, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
const flipped = { flip: true };
const shape = [2, 3];
const row = (i: number) => Float32Array.from({ length: 6 }, (_, j) => i + j);

async function painted(background: string): Promise<Buffer> {
  const wall = sharp({ create: { width: 12, height: 9, channels: 3, background } });
  return wall.png().toBuffer();
}

/** An image in a folder of its own, and a cache beside it. */
async function setting(background: string) {
  const folder = mkdtempSync(join(root, "s"));
  const path = join(folder, "wall.png");
  const bytes = await painted(background);
  writeFileSync(path, bytes);
  const open = (onProblem?: (message: string) => void) =>
    FeatureCache.open({ folder: join(folder, "cache"), key: "encoder", shape }, onProblem);
  const pair = { name: path, image: { path }, texts: [] };
  return { folder, path, bytes, open, pair, id: imageId(bytes, viewName(originalView)) };
}

const decoder = startDecoder(0);

test("decodes each view if there is no cache", async () => {
  const { pair, path, bytes } = await setting("red");
  const loader = new ImageLoader(spec, decoder);
  for (const view of [originalView, flipped]) {
    const pixels = await decodeImage({ name: path, bytes, view, spec });
    expect(await loader.load(pair, view)).toEqual({ pixels, id: imageId(bytes, viewName(view)) });
  }
});

test("finds cached features by the image's content, not its name, and by view", async () => {
  const { folder, bytes, open, pair, id } = await setting("red");
  const cache = await open();
  await cache.write(id, row(1));
  const loader = new ImageLoader(spec, decoder, cache);
  expect(await loader.load(pair, originalView)).toEqual({ features: row(1) });
  const copy = join(folder, "copy.png");
  writeFileSync(copy, bytes);
  expect(await loader.load({ ...pair, name: copy, image: { path: copy } }, originalView)).toEqual({
    features: row(1),
  });
  expect(await loader.load(pair, flipped)).toHaveProperty("pixels");
  await cache.close();
});

test("does not read an image again to find its features", async () => {
  const { path, open, pair, id } = await setting("red");
  const cache = await open();
  const loader = new ImageLoader(spec, decoder, cache);
  expect(await loader.load(pair, originalView)).toMatchObject({ id });
  await cache.write(id, row(1));
  rmSync(path);
  expect(await loader.load(pair, originalView)).toEqual({ features: row(1) });
  await expect(new ImageLoader(spec, decoder, cache).load(pair, originalView)).rejects.toThrow(path);
  await cache.close();
});

test("changed contents under the same name do not get old features in a later run", async () => {
  const { path, open, pair, id } = await setting("red");
  const cache = await open();
  await cache.write(id, row(1));
  await cache.close();
  const blue = await painted("blue");
  writeFileSync(path, blue);
  const later = await open();
  const loaded = await new ImageLoader(spec, decoder, later).load(pair, originalView);
  expect(loaded).toEqual({
    pixels: await decodeImage({ name: path, bytes: blue, view: originalView, spec }),
    id: imageId(blue, viewName(originalView)),
  });
  await later.close();
});

test("decodes the image if its cached row is corrupted", async () => {
  const { folder, path, bytes, open, pair, id } = await setting("red");
  const cache = await open();
  await cache.write(id, row(1));
  await cache.close();
  const files = readdirSync(join(folder, "cache"), { recursive: true, encoding: "utf8" });
  const segment = join(folder, "cache", files.find((name) => name.endsWith(".rows")) ?? "");
  const damaged = readFileSync(segment);
  damaged[damaged.length - 1] = 255 - (damaged.at(-1) as number);
  writeFileSync(segment, damaged);
  const problems: string[] = [];
  const again = await open((message) => problems.push(message));
  const loaded = await new ImageLoader(spec, decoder, again).load(pair, originalView);
  expect(loaded).toEqual({ pixels: await decodeImage({ name: path, bytes, view: originalView, spec }), id });
  expect(problems).toEqual([expect.stringContaining(id)]);
  await again.close();
});

test("an error names the image", async () => {
  const { bytes, path, pair } = await setting("red");
  writeFileSync(path, bytes.subarray(0, 30));
  await expect(new ImageLoader(spec, decoder).load(pair, originalView)).rejects.toThrow(path);
});
