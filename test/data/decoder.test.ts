import { readFileSync } from "node:fs";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  applyView,
  createViews,
  type Decoder,
  type DecodeTask,
  decodeImage,
  defaultWorkers,
  originalView,
  startDecoder,
  viewName,
} from "../../src/data/decoder.ts";
import type { Pixels } from "../../src/images/decode.ts";
import { image } from "../helpers/cli-command.ts";

describe("views", () => {
  const options = { count: 8, minSide: 0.6 };

  /** An image whose pixels are their coordinates. */
  function plane(width: number, height: number): Pixels {
    const data = new Uint8Array(width * height * 3);
    for (let i = 0; i < width * height; i++) data.set([i % width, Math.floor(i / width), 7], i * 3);
    return { width, height, data };
  }

  test("the first view is the image, the second its horizontal flip; every second crop is flipped", () => {
    const views = createViews("cat.jpg", options);
    expect(views[0]).toEqual(originalView);
    expect(views[1]).toEqual({ flip: true });
    expect(views.map(({ flip }) => flip)).toEqual([false, true, false, true, false, true, false, true]);
    expect(views.slice(2).every(({ crop }) => crop)).toBe(true);
  });

  test("crops lie within the image and have the minimum size", () => {
    fc.assert(
      fc.property(fc.string(), fc.double({ min: 0.05, max: 1, noNaN: true }), (name, minSide) => {
        for (const { crop } of createViews(name, { count: 6, minSide }).slice(2)) {
          if (!crop) throw new Error("no crop");
          expect(Math.min(crop.left, crop.top)).toBeGreaterThanOrEqual(0);
          expect(Math.max(crop.left + crop.width, crop.top + crop.height)).toBeLessThanOrEqual(1 + 1e-9);
          expect(Math.min(crop.width, crop.height)).toBeGreaterThanOrEqual(minSide);
        }
      }),
    );
  });

  test("views depend only on the image's name; fewer views are a prefix of more", () => {
    expect(createViews("cat.jpg", options)).toEqual(createViews("cat.jpg", options));
    expect(createViews("cat.jpg", options)[2]).not.toEqual(createViews("dog.jpg", options)[2]);
    expect(createViews("cat.jpg", { ...options, count: 3 })).toEqual(createViews("cat.jpg", options).slice(0, 3));
  });

  test("view names are unique", () => {
    const views = [...createViews("cat.jpg", options), ...createViews("dog.jpg", options).slice(2)];
    expect(new Set(views.map(viewName)).size).toBe(views.length);
    const [crop] = createViews("cat.jpg", options).slice(2);
    expect(viewName({ ...crop, flip: true })).not.toBe(viewName({ ...crop, flip: false }));
    expect(viewName(originalView)).toBe("whole");
  });

  test("a view is cropped first, then flipped", () => {
    const pixels = plane(10, 4);
    const columns = ({ width, data }: Pixels) => Array.from({ length: width }, (_, i) => data[i * 3]);
    expect(applyView(pixels, originalView)).toEqual(pixels);
    expect(columns(applyView(pixels, { flip: true }))).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    const crop = { left: 0.1, top: 0.25, width: 0.3, height: 0.5 };
    const cropped = applyView(pixels, { flip: false, crop });
    expect([cropped.width, cropped.height, cropped.data[1], columns(cropped)]).toEqual([3, 2, 1, [1, 2, 3]]);
    expect(columns(applyView(pixels, { flip: true, crop }))).toEqual([3, 2, 1]);
  });
});

const spec = { size: 64, mean: [0.5, 0.4, 0.3], std: [0.2, 0.2, 0.2] } as const;
const flippedCrop = { flip: true, crop: { left: 0.2, top: 0.1, width: 0.5, height: 0.7 } };

function task(name: string, view = originalView): DecodeTask {
  return { name, bytes: readFileSync(image(name)), view, spec };
}

let decoder: Decoder;

beforeAll(() => {
  decoder = startDecoder(2);
});

afterAll(() => decoder.close());

test("workers and the calling thread decode to the same values, also concurrently", async () => {
  const tasks = ["cat.jpg", "coffee.jpg"].flatMap((name) => [task(name), task(name, flippedCrop)]);
  const many = Array.from({ length: 5 }, () => tasks).flat();
  const decoded = await Promise.all(many.map((one) => decoder.decode(one)));
  const here = await Promise.all(tasks.map(decodeImage));
  decoded.forEach((pixels, i) => {
    expect(pixels).toBeInstanceOf(Float32Array);
    expect(pixels).toEqual(here[i % tasks.length]);
  });
  expect(here[0]).toHaveLength(3 * 64 * 64);
  expect(here[1]).not.toEqual(here[0]);
  const none = startDecoder(0);
  expect(await none.decode(task("cat.jpg"))).toEqual(here[0]);
  await none.close();
});

test("the encoded image is not transferred away", async () => {
  const one = task("cat.jpg");
  await decoder.decode(one);
  expect(Buffer.from(one.bytes)).toEqual(readFileSync(image("cat.jpg")));
});

test("an error names the image, and the workers keep running", async () => {
  const bytes = readFileSync(image("cat.jpg")).subarray(0, 5000);
  const broken = { ...task("cat.jpg"), name: "holiday/cat.jpg", bytes };
  await expect(decoder.decode(broken)).rejects.toThrow(/^holiday\/cat\.jpg is damaged or truncated/);
  await expect(decoder.decode({ ...broken, bytes: new Uint8Array(0) })).rejects.toThrow("holiday/cat.jpg is empty");
  expect(await decoder.decode(task("cat.jpg"))).toHaveLength(3 * 64 * 64);
});

test("images are decoded while the calling thread is busy", async () => {
  const create = { width: 2000, height: 1500, channels: 3 as const, background: "red" };
  const bytes = await sharp({ create }).jpeg().toBuffer();
  const large = (i: number): DecodeTask => ({ name: `${i}.jpg`, bytes, view: originalView, spec });
  await Promise.all([0, 1].map((i) => decoder.decode(large(i))));
  const alone = await seconds(decoder.decode(large(2)));
  const tasks = Array.from({ length: 12 }, (_, i) => decoder.decode(large(i)));
  // The message ports hand tasks over in the next turn.
  await new Promise((resolve) => setImmediate(resolve));
  const until = performance.now() + Math.max(1000, 20_000 * alone);
  while (performance.now() < until);
  const left = await seconds(Promise.all(tasks));
  expect(left).toBeLessThan(Math.max(0.05, alone));
});

async function seconds(work: Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work;
  return (performance.now() - started) / 1000;
}

test("uses between one and four workers by default", () => {
  expect(defaultWorkers()).toBeGreaterThanOrEqual(1);
  expect(defaultWorkers()).toBeLessThanOrEqual(4);
});
