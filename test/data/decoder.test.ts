import { readFileSync } from "node:fs";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Decoder,
  type DecodeTask,
  decodeImage,
  defaultWorkers,
  startDecoder,
  unchangedView,
} from "../../src/data/decoder.ts";
import { image } from "../helpers/cli-command.ts";

const spec = { size: 64, mean: [0.5, 0.4, 0.3], std: [0.2, 0.2, 0.2] } as const;
const cropped = { mirrored: true, box: { left: 0.2, top: 0.1, width: 0.5, height: 0.7 } };

function task(name: string, view = unchangedView): DecodeTask {
  return { name, bytes: readFileSync(image(name)), view, spec };
}

let decoder: Decoder;

beforeAll(() => {
  decoder = startDecoder(2);
});

afterAll(() => decoder.close());

test("workers decode as this thread does, in any number at once", async () => {
  const tasks = ["cat.jpg", "coffee.jpg"].flatMap((name) => [task(name), task(name, cropped)]);
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

test("the encoded image is still there afterwards", async () => {
  const one = task("cat.jpg");
  await decoder.decode(one);
  expect(Buffer.from(one.bytes)).toEqual(readFileSync(image("cat.jpg")));
});

test("a broken image is an error with its name, and the workers go on", async () => {
  const bytes = readFileSync(image("cat.jpg")).subarray(0, 5000);
  const broken = { ...task("cat.jpg"), name: "holiday/cat.jpg", bytes };
  await expect(decoder.decode(broken)).rejects.toThrow(/^holiday\/cat\.jpg is damaged or cut off/);
  await expect(decoder.decode({ ...broken, bytes: new Uint8Array(0) })).rejects.toThrow("holiday/cat.jpg is empty");
  expect(await decoder.decode(task("cat.jpg"))).toHaveLength(3 * 64 * 64);
});

test("images are decoded while this thread is busy", async () => {
  const create = { width: 2000, height: 1500, channels: 3 as const, background: "red" };
  const bytes = await sharp({ create }).jpeg().toBuffer();
  const large = (i: number): DecodeTask => ({ name: `${i}.jpg`, bytes, view: unchangedView, spec });
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

test("a core is left for the engine, where there is one", () => {
  expect(defaultWorkers()).toBeGreaterThanOrEqual(1);
  expect(defaultWorkers()).toBeLessThanOrEqual(4);
});
