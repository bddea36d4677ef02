/** A dataset whose parts have these numbers of images; a part of -1 cannot be read. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { addImages, chooseImages } from "../../src/curation/images.ts";
import { type Dataset, type ImageTextPair, type InvalidSample, listPairs } from "../../src/data/dataset.ts";
import { openDataset } from "../../src/data/formats/open.ts";
import { openProject } from "../helpers/curation-projects.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

function dataset(...sizes: readonly number[]): Dataset {
  const parts = sizes.map((size, part) => ({
    path: `${part}.tar`,
    async read() {
      if (size < 0) throw new Error(`${part}.tar is damaged`);
      const pairs = Array.from({ length: size }, (_, i) => pair(`${part}.tar/${i}`));
      return { pairs, invalid: [] };
    },
  }));
  return { format: "web_shards", parts };
}

function pair(name: string): ImageTextPair {
  return { name, image: { path: name }, texts: [] };
}

const names = (pairs: readonly ImageTextPair[]) => pairs.map(({ name }) => name);

test("chooses without repetition; a larger count extends a smaller one", () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(30), { minLength: 1, maxLength: 6 }).filter((sizes) => sizes.some((size) => size > 0)),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(2 ** 32 - 1),
      async (sizes, count, more, seed) => {
        const set = dataset(...sizes);
        const small = names(await chooseImages(set, { count, seed }));
        const large = names(await chooseImages(set, { count: count + more, seed }));
        const all = names(await listPairs(set));
        expect(small).toHaveLength(Math.min(count, all.length));
        expect(new Set(small).size).toBe(small.length);
        expect(large.slice(0, small.length)).toEqual(small);
        expect(all).toEqual(expect.arrayContaining(large));
      },
    ),
    { numRuns: 50 },
  ));

test("chooses every image with the same probability", async () => {
  const set = dataset(5, 20, 15);
  const chosen = new Map<string, number>();
  for (let seed = 0; seed < 2000; seed++) {
    for (const name of names(await chooseImages(set, { count: 10, seed }))) {
      chosen.set(name, (chosen.get(name) ?? 0) + 1);
    }
  }
  expect(chosen.size).toBe(40);
  // 500 each, with a standard deviation of 19.
  for (const times of chosen.values()) expect(Math.abs(times - 500)).toBeLessThan(100);
});

test("reports unreadable parts; throws if all are unreadable", async () => {
  const problems: InvalidSample[] = [];
  const options = { count: 99, seed: 0, onProblem: (problem: InvalidSample) => problems.push(problem) };
  expect(await chooseImages(dataset(2, -1, 3), options)).toHaveLength(5);
  expect(problems).toEqual([{ name: "1.tar", reason: "1.tar is damaged" }]);
  await expect(chooseImages(dataset(-1, -1), options)).rejects.toThrow("0.tar is damaged");
  await expect(chooseImages(dataset(0), options)).rejects.toThrow("lists no images");
});

test("adds each image once, with its path and SHA-256; reports unreadable ones", async () => {
  const folder = temporaryFolder();
  const data = join(folder, "data");
  mkdirSync(data);
  for (const name of ["a", "b", "c"]) writeFileSync(join(data, `${name}.jpg`), name === "c" ? "a" : name);
  const here = relative(process.cwd(), data);
  const pairs = await listPairs(await openDataset(here));
  rmSync(join(data, "b.jpg"));
  const store = openProject(folder);
  const report = await addImages(store, pairs);
  expect(report).toMatchObject({ added: 1, known: 0, duplicates: 1 });
  expect(report.unreadable.map(({ name }) => name)).toEqual([join(here, "b.jpg")]);
  const [entry] = store.entries();
  expect(entry?.image.sha256).toBe("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
  expect(entry?.image.name).toBe(join(here, "a.jpg"));
  expect(isAbsolute(entry?.image.source.path ?? "")).toBe(true);
  writeFileSync(join(data, "b.jpg"), "b");
  expect(await addImages(store, pairs)).toEqual({ added: 1, known: 1, duplicates: 1, unreadable: [] });
});

test("an interrupted call adds no images", async () => {
  const folder = temporaryFolder();
  for (const name of ["a.jpg", "b.jpg"]) writeFileSync(join(folder, name), name);
  const store = openProject(folder);
  const controller = new AbortController();
  const adding = addImages(store, await listPairs(await openDataset(folder)), {
    onProgress: () => controller.abort(new Error("stopped")),
    signal: controller.signal,
  });
  await expect(adding).rejects.toThrow("stopped");
  expect(store.entries()).toEqual([]);
});
