import fc from "fast-check";
import { expect, test } from "vitest";
import { type Dataset, type InvalidSample, listPairs } from "../../src/data/dataset.ts";
import { ShuffledStream, type StreamState } from "../../src/data/sampling.ts";
import { datasetOf, pairOf, partOf } from "../helpers/dataset-in-memory.ts";

const sizesOfParts = fc
  .array(fc.nat(6), { minLength: 1, maxLength: 7 })
  .filter((sizes) => sizes.some((size) => size > 0));
const setting = fc.record({ sizes: sizesOfParts, seed: fc.nat(1e9), shuffleBuffer: fc.integer({ min: 1, max: 30 }) });

async function take(stream: ShuffledStream, count: number): Promise<string[]> {
  const names: string[] = [];
  for (let i = 0; i < count; i++) names.push((await stream.next()).name);
  return names;
}

const namesOf = async (dataset: Dataset) => (await listPairs(dataset)).map(({ name }) => name);

test("each epoch yields each pair exactly once", async () => {
  await fc.assert(
    fc.asyncProperty(setting, async ({ sizes, ...options }) => {
      const dataset = datasetOf(sizes);
      const names = await namesOf(dataset);
      const stream = new ShuffledStream(dataset, options);
      for (let epoch = 0; epoch < 3; epoch++) {
        expect((await take(stream, names.length)).sort()).toEqual(names.toSorted());
        expect(stream.save().epoch).toBe(epoch);
      }
    }),
  );
});

test("resumes from any position", async () => {
  await fc.assert(
    fc.asyncProperty(setting, fc.nat(40), async ({ sizes, ...options }, place) => {
      const dataset = datasetOf(sizes);
      const stream = new ShuffledStream(dataset, options);
      await take(stream, place);
      const state: StreamState = JSON.parse(JSON.stringify(stream.save()));
      const rest = await take(stream, 25);
      expect(await take(new ShuffledStream(dataset, options, state), 25)).toEqual(rest);
    }),
  );
});

test("the order depends on seed and epoch, and is never the listed one", async () => {
  for (const [sizes, shuffleBuffer] of [
    [[60], 60],
    [[20, 20, 20], 20],
    [Array(60).fill(1), 1],
  ] as const) {
    const dataset = datasetOf(sizes);
    const orders = [await namesOf(dataset)];
    for (let seed = 0; seed < 5; seed++) {
      const stream = new ShuffledStream(dataset, { seed, shuffleBuffer });
      orders.push(await take(stream, 60), await take(stream, 60));
    }
    expect(new Set(orders.map((order) => order.join())).size).toBe(11);
  }
});

test("a buffer larger than a part mixes parts; a small one does not", async () => {
  const dataset = datasetOf([10, 10, 10, 10]);
  const partsIn = async (shuffleBuffer: number) => {
    const names = await take(new ShuffledStream(dataset, { seed: 1, shuffleBuffer }), 10);
    return new Set(names.map((name) => name.split("/")[0])).size;
  };
  expect(await partsIn(10)).toBe(1);
  expect(await partsIn(11)).toBe(2);
  expect(await partsIn(1000)).toBe(4);
});

test("all orders are equally likely", async () => {
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 6000; seed++) {
    const order = (await take(new ShuffledStream(datasetOf([3]), { seed, shuffleBuffer: 9 }), 3)).join();
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  expect(counts.size).toBe(6);
  // Six standard deviations of a binomial with n = 6000 and p = 1/6.
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(6 * Math.sqrt((6000 * 5) / 36));
});

test("lists parts lazily, only as many as fill the buffer", async () => {
  const read: string[] = [];
  const dataset = datasetOf([2, 2, 2, 2, 2]);
  const parts = dataset.parts.map((part) => ({
    path: part.path,
    read() {
      read.push(part.path);
      return part.read();
    },
  }));
  const stream = new ShuffledStream({ ...dataset, parts }, { seed: 3, shuffleBuffer: 4 });
  await take(stream, 1);
  expect(read).toHaveLength(2);
  await take(stream, 3);
  expect(read).toHaveLength(2);
  await take(stream, 1);
  expect(read).toHaveLength(4);
});

test("reports and skips invalid samples and unreadable parts", async () => {
  const broken: InvalidSample = { name: "mixed/2", reason: "has no text" };
  const dataset: Dataset = {
    format: "memory",
    parts: [
      { path: "mixed", read: async () => ({ pairs: [pairOf("mixed/0"), pairOf("mixed/1")], invalid: [broken] }) },
      { path: "lost", read: () => Promise.reject(new Error("the disk is gone")) },
      partOf("good", 2),
    ],
  };
  const told: InvalidSample[] = [];
  const onInvalid = (problem: InvalidSample) => told.push(problem);
  const stream = new ShuffledStream(dataset, { seed: 1, shuffleBuffer: 2, onInvalid });
  expect((await take(stream, 4)).sort()).toEqual(["good/0", "good/1", "mixed/0", "mixed/1"]);
  await take(stream, 4);
  expect(told.filter(({ name }) => name === "lost")[0]).toEqual({ name: "lost", reason: "the disk is gone" });
  // Once per epoch; `InvalidSampleTracker` reports each sample once.
  for (const name of ["lost", "mixed/2"])
    expect(told.filter((problem) => problem.name === name).length).toBeLessThan(3);
});

test("a dataset without a usable pair is an error, also after a full epoch", async () => {
  const empty = new ShuffledStream(datasetOf([0, 0]), { seed: 1, shuffleBuffer: 5 });
  await expect(empty.next()).rejects.toThrow("None of 2 parts (part0, ...) has a usable image");
  let isThere = true;
  const vanishing = { path: "vanishing", read: async () => ({ pairs: isThere ? [pairOf("one")] : [], invalid: [] }) };
  const stream = new ShuffledStream({ format: "memory", parts: [vanishing] }, { seed: 1, shuffleBuffer: 5 });
  expect(await take(stream, 1)).toEqual(["one"]);
  isThere = false;
  await expect(stream.next()).rejects.toThrow(/vanishing.*usable image/);
});
