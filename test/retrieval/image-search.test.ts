import { copyFileSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { listPairs } from "../../src/data/dataset.ts";
import { openCaptioned } from "../../src/data/formats/open.ts";
import { RequestError } from "../../src/errors.ts";
import { evaluateRetrieval } from "../../src/evaluation/retrieval.ts";
import { readImage } from "../../src/images/decode.ts";
import { preprocess } from "../../src/images/preprocess.ts";
import { ImageSearch } from "../../src/retrieval/image-search.ts";
import { openRetrievalModel } from "../../src/retrieval/open-retrieval-model.ts";
import { tinyBlip2, writeQFormer } from "../helpers/blip2-tiny.ts";
import { image } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const root = temporaryFolder();
const folder = join(root, "images");
const names = ["astronaut.jpg", "cat.jpg", "coffee.jpg", "raccoon.jpg", "rocket.jpg"];
const text = "a cat";
let model: string;
let search: ImageSearch;

const open = (options = {}) =>
  ImageSearch.open(folder, {
    model,
    index: join(root, `${basename(model)}.images`),
    features: join(root, "features"),
    ...options,
  });

beforeAll(async () => {
  mkdirSync(folder);
  for (const name of names) {
    copyFileSync(image(name), join(folder, name));
    utimesSync(join(folder, name), 1e9, 1e9);
  }
  model = tinyBlip2(root);
  search = await open();
});
afterAll(() => search.close());

/** The embeddings of an image, one vector per element. */
async function vectorsOf(name: string): Promise<Float32Array[]> {
  const retrievalModel = await openRetrievalModel(model);
  const pixels = preprocess(await readImage(image(name)), retrievalModel.spec).data;
  const all = await retrievalModel.embedImages([pixels]);
  await retrievalModel.close();
  return Array.from({ length: retrievalModel.shape[0] }, (_, i) =>
    all.slice(i * retrievalModel.shape[1], (i + 1) * retrievalModel.shape[1]),
  );
}

async function embed(words: string): Promise<Float32Array> {
  const retrievalModel = await openRetrievalModel(model);
  const [vector] = await retrievalModel.embedTexts([words]);
  await retrievalModel.close();
  return vector as Float32Array;
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
const nearest = (vectors: readonly Float32Array[], to: Float32Array) => Math.max(...vectors.map((one) => dot(one, to)));

test("without re-ranking, the score is the largest similarity of an image's embeddings to the text's", async () => {
  const query = await embed(text);
  expect(Math.hypot(...query)).toBeCloseTo(1, 5);
  const expected = new Map<string, number>();
  for (const name of names) expected.set(name, nearest(await vectorsOf(name), query));
  const found = await search.search(text, { rerank: 0 });
  for (const { name, path, itc, score, ...rest } of found) {
    expect(itc).toBeCloseTo(expected.get(name) as number, 2);
    expect({ path, score, rest }).toEqual({ path: join(folder, name), score: itc, rest: {} });
  }
  const byScore = [...names].sort((a, b) => (expected.get(b) as number) - (expected.get(a) as number));
  expect(found.map(({ name }) => name)).toEqual(byScore);
  expect(await search.search(text, { rerank: 0, top: 2 })).toEqual(found.slice(0, 2));
  // Texts are cleaned like captions.
  expect(await search.search(" A CAT!", { rerank: 0 })).toEqual(found);
});

test("re-ranking adds the logits of the matching head to the scores of the nearest images", async () => {
  const plain = await search.search(text, { rerank: 0 });
  const again = await search.search(text, { rerank: 3 });
  const chosen = plain.slice(0, 3).map(({ name }) => name);
  expect(
    again
      .slice(0, 3)
      .map(({ name }) => name)
      .sort(),
  ).toEqual([...chosen].sort());
  expect(again.slice(3)).toEqual(plain.slice(3));
  for (const { itc, itm = Number.NaN, score, probability, name } of again.slice(0, 3)) {
    expect(itc).toBe(plain.find((one) => one.name === name)?.itc);
    expect(score).toBe(itc + itm);
    expect(probability).toBeGreaterThan(0);
    expect(probability).toBeLessThan(1);
  }
  const scores = again.slice(0, 3).map(({ score }) => score);
  expect(scores).toEqual([...scores].sort((a, b) => b - a));
  // Cached features and other batch sizes give the same logits.
  const all = await search.search(text);
  for (const one of again.slice(0, 3))
    expect(all.find(({ name }) => name === one.name)?.itm).toBeCloseTo(one.itm as number, 4);
});

test("a matching head with negated weights reverses the order", async () => {
  const before = await search.search(text);
  await writeQFormer(join(root, "opposite.safetensors"), (name, values) =>
    name.startsWith("itm_head.") ? values.map((value) => -100 * value) : undefined,
  );
  const path = tinyBlip2(root, "opposite", ({ weights }) => ({
    weights: { ...weights, qformer: "../opposite.safetensors" },
  }));
  const other = await open({ model: path, index: join(root, "opposite.images") });
  const after = await other.search(text);
  const byLogit = [...before].sort((a, b) => (a.itm as number) - (b.itm as number)).map(({ name }) => name);
  expect(after.map(({ name }) => name)).toEqual(byLogit);
  for (const { name, itm = 0 } of after)
    expect(itm / -100).toBeCloseTo(before.find((one) => one.name === name)?.itm as number, 3);
  await other.close();
});

test("similarity to an image is the mean of its vectors' largest similarities; for a path, bytes and an indexed image", async () => {
  const other = image("cat.jpg");
  const found = await search.like(other);
  expect(found[0]).toMatchObject({ name: "cat.jpg", score: expect.closeTo(1, 2) });
  expect(found.map(({ score }) => score)).toEqual(found.map(({ score }) => score).sort((a, b) => b - a));
  const [cat, rocket] = [await vectorsOf("cat.jpg"), await vectorsOf("rocket.jpg")];
  const expected = cat.reduce((sum, one) => sum + nearest(rocket, one), 0) / cat.length;
  expect(found.find(({ name }) => name === "rocket.jpg")?.score).toBeCloseTo(expected, 2);
  expect(await search.like(new Uint8Array(readFileSync(other)), { top: 1 })).toEqual(found.slice(0, 1));
  for (const broken of [join(root, "gone.png"), Uint8Array.of(1, 2)]) {
    const error = await search.like(broken).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(RequestError);
    expect(error).toMatchObject({ code: "invalid_image" });
  }
});

test("re-ranking drops images that have changed since they were indexed; update() indexes the changes", async () => {
  const own = join(root, "changing");
  mkdirSync(own);
  for (const name of names) copyFileSync(image(name), join(own, name));
  const changing = await ImageSearch.open(own, {
    model,
    index: join(root, "changing.images"),
    features: join(root, "other-features"),
  });
  rmSync(join(own, "cat.jpg"));
  writeFileSync(join(own, "rocket.jpg"), readFileSync(image("coffee.jpg")));
  const left = await changing.search(text);
  expect(left.map(({ name }) => name).sort()).toEqual(["astronaut.jpg", "coffee.jpg", "raccoon.jpg"]);
  expect(changing.size).toBe(5);
  await changing.update();
  expect(changing.size).toBe(4);
  const after = await changing.search(text);
  expect(after.map(({ name }) => name).sort()).toEqual(["astronaut.jpg", "coffee.jpg", "raccoon.jpg", "rocket.jpg"]);
  const scoreOf = (name: string) => after.find((one) => one.name === name)?.score;
  expect(scoreOf("rocket.jpg")).toBe(scoreOf("coffee.jpg"));
  await changing.close();
});

test("invalid searches are rejected", async () => {
  for (const words of ["", " . !"]) {
    const error = await search.search(words).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(RequestError);
    expect(error).toMatchObject({ code: "invalid_request" });
  }
  await expect(search.search(text, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/);
  await expect(ImageSearch.open(join(root, "nowhere"), { model })).rejects.toThrow(/ENOENT.*nowhere/);
  const headless = tinyModel(root, "headless");
  await expect(open({ model: headless })).rejects.toThrow(/headless has no contrastive head/);
  // A long text is truncated.
  expect(await search.search("cat ".repeat(10_000), { rerank: 1 })).toHaveLength(5);
});

describe("evaluateRetrieval", () => {
  test("metrics agree with searches, with and without re-ranking", async () => {
    const captions = ["a cat", "a rocket in the sky", "ab cd", "coffee", "zz top"];
    mkdirSync(join(root, "set", "Images"), { recursive: true });
    for (const name of names) copyFileSync(image(name), join(root, "set", "Images", name));
    const rows = names.map((name, i) => `${name},${captions[i]}`);
    writeFileSync(join(root, "set", "captions.txt"), `image,caption\n${rows.join("\n")}\n`);
    const pairs = await listPairs(await openCaptioned(join(root, "set")));
    const retrievalModel = await openRetrievalModel(model, { features: join(root, "features") });
    const stages: string[] = [];
    const report = await evaluateRetrieval(retrievalModel, pairs, {
      rerank: 3,
      onProgress: (what) => stages.push(what),
    });
    await retrievalModel.close();
    expect(new Set(stages)).toEqual(new Set(["images embedded", "images matched"]));
    const shareFirst = async (rerank: number) => {
      let first = 0;
      for (const [i, caption] of captions.entries()) {
        const [best] = await search.search(caption, { rerank, top: 1 });
        if (best?.name === names[i]) first++;
      }
      return first / captions.length;
    };
    expect(report).toMatchObject({
      images: 5,
      captions: 5,
      textToImage: { recallAt1: await shareFirst(0), recallAt5: 1 },
      chance: { imageToText: { recallAt1: expect.closeTo(0.2) } },
      reranked: { candidates: 3, textToImage: { recallAt1: await shareFirst(3), recallAt5: 1 } },
    });
  });
});
