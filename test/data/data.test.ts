import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { FeatureStore, featureKey } from "../../src/data/feature-store.ts";
import { readPairs } from "../../src/data/pairs.ts";
import { Sampler, sharesOf } from "../../src/data/sampler.ts";
import { show, viewsOf } from "../../src/data/views.ts";
import { Random } from "../../src/tensor/random.ts";

const folder = await mkdtemp(join(tmpdir(), "data-"));
afterAll(() => rm(folder, { recursive: true }));

describe("readPairs", () => {
  test("groups the captions of a picture, in order", async () => {
    const path = join(folder, "flickr");
    await mkdir(path);
    await writeFile(
      join(path, "captions.txt"),
      'image,caption\nb.jpg,A dog .\na.jpg,"A cat, asleep"\nb.jpg,Two dogs\n',
    );
    expect(await readPairs(path)).toEqual([
      { picture: join(path, "Images", "b.jpg"), texts: ["A dog .", "Two dogs"] },
      { picture: join(path, "Images", "a.jpg"), texts: ["A cat, asleep"] },
    ]);
  });

  test("takes a CSV file with names", async () => {
    const path = join(folder, "objects.csv");
    await writeFile(path, "image,name\nn1.jpg,tench\n");
    expect(await readPairs(path)).toEqual([{ picture: join(folder, "Images", "n1.jpg"), texts: ["tench"] }]);
  });

  test("names the file and the record that is wrong", async () => {
    const path = join(folder, "wrong.csv");
    await writeFile(path, "image,nothing\na.jpg,b\n");
    await expect(readPairs(path)).rejects.toThrow(/wrong\.csv, record 1/);
    await expect(readPairs(join(folder, "missing"))).rejects.toThrow(/missing is not there/);
  });
});

describe("FeatureStore", () => {
  const request = { path: join(folder, "features.safetensors"), key: "a", count: 5, shape: [2, 3] };
  const row = (i: number) => Float32Array.from({ length: 6 }, (_, j) => i + j / 8);
  const compute = (calls: number[]) => async (first: number) => {
    calls.push(first);
    return [row(first)];
  };

  test("computes each row once, and reads it back", async () => {
    const calls: number[] = [];
    await (await FeatureStore.open(request, compute(calls))).close();
    const again = await FeatureStore.open(request, compute(calls));
    expect(calls).toEqual([0, 1, 2, 3, 4]);
    const out = new Float32Array(6);
    await again.read(3, out);
    expect([...out]).toEqual([...row(3)]);
    await expect(again.read(5, out)).rejects.toThrow(RangeError);
    await again.close();
  });

  test("another key is computed anew, and a failure leaves nothing behind", async () => {
    const calls: number[] = [];
    await (await FeatureStore.open({ ...request, key: "b" }, compute(calls))).close();
    expect(calls).toHaveLength(5);
    const before = (await readdir(folder)).sort();
    const failing = FeatureStore.open({ ...request, key: "c" }, async () => {
      throw new Error("no encoder");
    });
    await expect(failing).rejects.toThrow("no encoder");
    expect((await readdir(folder)).sort()).toEqual(before);
  });

  test("keys tell their parts apart", () => {
    expect(featureKey(["a", "bc"])).not.toBe(featureKey(["ab", "c"]));
  });
});

describe("Sampler", () => {
  test("draws every sample once before any again, and goes on from its state", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.nat(99),
        (size, perBatch, seed) => {
          const random = new Random(seed);
          const sampler = new Sampler([{ size, perBatch }], random);
          const drawn = Array.from({ length: size * perBatch }, () => sampler.next()[0] as number[]).flat();
          for (let i = 0; i < drawn.length; i += size) expect(new Set(drawn.slice(i, i + size)).size).toBe(size);
          const copy = new Sampler([{ size, perBatch }], Random.from(random.save()), sampler.save());
          expect(copy.next()).toEqual(sampler.next());
        },
      ),
    );
  });

  test("shares follow the ratios and fill the batch", () => {
    expect(sharesOf([14, 115], 64)).toEqual([7, 57]);
    expect(sharesOf([8, 5], 13)).toEqual([8, 5]);
    expect(sharesOf([1000, 1], 4)).toEqual([3, 1]);
    expect(() => new Sampler([{ size: 0, perBatch: 1 }], new Random(0))).toThrow(/no samples/);
  });
});

test("views: the picture itself, its mirror image, then crops, the same for the same seed", () => {
  const pixels = { width: 4, height: 2, data: Uint8Array.from({ length: 24 }, (_, i) => i) };
  const views = viewsOf(3, { count: 6, minSide: 0.5 });
  expect(views).toEqual(viewsOf(3, { count: 6, minSide: 0.5 }));
  expect(show(pixels, views[0] as (typeof views)[0])).toEqual(pixels);
  expect(show(pixels, views[1] as (typeof views)[0]).data.slice(0, 3)).toEqual(pixels.data.slice(9, 12));
  for (const { box } of views.slice(2)) {
    expect(box?.width).toBeGreaterThanOrEqual(0.5);
    expect((box?.left ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(1);
  }
});
