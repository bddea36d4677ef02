import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type InvalidSample, InvalidSampleTracker, listPairs, splitValidation } from "../../src/data/dataset.ts";
import { datasetOf, pairOf, partOf } from "../helpers/dataset-in-memory.ts";

const names = (pairs: readonly { readonly name: string }[]) => pairs.map(({ name }) => name);

describe("splitValidation", () => {
  test("partitions the pairs", async () => {
    const sizes = fc.tuple(fc.array(fc.nat(5), { maxLength: 4 }), fc.integer({ min: 1, max: 12 }));
    await fc.assert(
      fc.asyncProperty(sizes, fc.nat(11), async ([others, last], requested) => {
        const dataset = datasetOf([...others, last]);
        const count = Math.min(requested, last - 1);
        const { train, validation } = await splitValidation(dataset, count);
        expect(validation).toHaveLength(count);
        const left = names(await listPairs(train));
        expect([...left, ...names(validation)].sort()).toEqual(names(await listPairs(dataset)).sort());
      }),
    );
  });

  test("takes the last pairs by name, whatever order the part lists them in", async () => {
    const shuffled = ["c", "a", "d", "b"].map(pairOf);
    const invalid = [{ name: "e", reason: "has no text" }];
    const dataset = {
      format: "memory",
      parts: [partOf("z", 2), { path: "last", read: async () => ({ pairs: shuffled, invalid }) }],
    };
    const { train, validation } = await splitValidation(dataset, 2);
    expect(names(validation)).toEqual(["c", "d"]);
    expect(names(await listPairs(train))).toEqual(["z/0", "z/1", "a", "b"]);
    expect(await train.parts[1]?.read()).toMatchObject({ invalid });
    const twice = await splitValidation(train, 1);
    expect([names(twice.validation), names(await listPairs(twice.train))]).toEqual([["b"], ["z/0", "z/1", "a"]]);
  });

  test("is empty for an empty dataset, and refuses to take a whole part", async () => {
    expect(await splitValidation(datasetOf([]), 3)).toMatchObject({ validation: [] });
    const dataset = datasetOf([5, 3]);
    expect(await splitValidation(dataset, 0)).toEqual({ train: dataset, validation: [] });
    await expect(splitValidation(dataset, 3)).rejects.toThrow("part1 lists 3 images, so 3 cannot be held out of it");
  });
});

describe("InvalidSampleTracker", () => {
  function trackerWith(count: number, maxShare: number): InvalidSampleTracker {
    const tracker = new InvalidSampleTracker(maxShare);
    for (let i = 0; i < count; i++) tracker.add({ name: `image ${i}`, reason: `reason ${i}` });
    return tracker;
  }

  test("reports and counts each invalid sample once", () => {
    const reported: InvalidSample[] = [];
    const tracker = new InvalidSampleTracker(0.1, (sample) => reported.push(sample));
    tracker.add({ name: "a", reason: "is empty" });
    tracker.add({ name: "b", reason: "is not an image" });
    tracker.add({ name: "a", reason: "is still empty" });
    expect(tracker.count).toBe(2);
    expect(reported).toEqual([
      { name: "a", reason: "is empty" },
      { name: "b", reason: "is not an image" },
    ]);
  });

  test("tolerates 20 invalid samples, and of many samples the given share", () => {
    expect(() => trackerWith(20, 0).check(20)).not.toThrow();
    expect(() => trackerWith(21, 0).check(1_000_000)).toThrow("21 of 1000000 samples are invalid");
    expect(() => trackerWith(50, 0.05).check(1000)).not.toThrow();
    expect(() => trackerWith(51, 0.05).check(1000)).toThrow(
      "51 of 1000 samples are invalid, more than the limit of 5% (run.max_broken). The first ones:\n" +
        "  image 0: reason 0\n  image 1: reason 1\n  image 2: reason 2",
    );
  });
});
