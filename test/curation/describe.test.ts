import { appendFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type DescribeOptions, describeImages, join as joined } from "../../src/curation/describe.ts";
import { addImages } from "../../src/curation/images.ts";
import { CurationStore } from "../../src/curation/store.ts";
import { listPairs } from "../../src/data/dataset.ts";
import { openDataset } from "../../src/data/formats/open.ts";
import type { Engine, GenerationRequest } from "../../src/engine/engine.ts";
import { loadEngine } from "../../src/engine/load-engine.ts";
import { EngineLostError } from "../../src/errors.ts";
import { sha256Hex } from "../../src/files/digest.ts";
import { promptText, vicunaV0 } from "../../src/tokenizers/prompts.ts";
import { minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { paintImages } from "../helpers/curation-images.ts";
import { openProject } from "../helpers/curation-projects.ts";
import { until } from "../helpers/running-server.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const data = join(folder, "data");
const count = 24;
let engine: Engine;
let projects = 0;

beforeAll(async () => {
  await paintImages(data, count);
  engine = await loadEngine(model, "tiny", { maxBatch: 8 });
});
afterAll(() => engine.close());

/** A new project with all images of a folder. */
async function project(images = data): Promise<CurationStore> {
  const store = openProject(folder, `${projects++}.db`);
  await addImages(store, await listPairs(await openDataset(images)));
  return store;
}

/** Draws, so that different seeds give different texts. */
const drawing: DescribeOptions = { promptStyle: "paper", decoding: { temperature: 1, maxNewTokens: 6, seed: 3 } };

/** The real engine, and the questions that it was asked. */
function listening(): { readonly engine: Engine; readonly asked: GenerationRequest[] } {
  const asked: GenerationRequest[] = [];
  const heard: Engine = {
    model: engine.model,
    generate(question, signal) {
      asked.push(question);
      return engine.generate(question, signal);
    },
    embed: (inputs, signal) => engine.embed(inputs, signal),
    close: async () => {},
  };
  return { engine: heard, asked };
}

async function answerTo(question: GenerationRequest): Promise<string> {
  let text = "";
  for await (const event of engine.generate(question)) if (event.kind === "text") text += event.text;
  return text.replaceAll("\0", "").trim();
}

const textsBySha256 = (store: CurationStore) =>
  Object.fromEntries(store.entries().map(({ image, current }) => [image.sha256, current?.text]));

test("uses the paper's prompt, and continues short descriptions once", async () => {
  const store = await project();
  const { engine: heard, asked } = listening();
  const report = await describeImages(store, heard, drawing);
  expect(report).toMatchObject({ described: count, continued: count, failed: 0, givenUp: 0 });
  expect(asked).toHaveLength(2 * count);
  const [entry] = store.entries();
  if (!entry?.current) throw new Error("nothing is described");
  const [first, second] = asked.filter(
    ({ images: [image] }) => image instanceof Uint8Array && sha256Hex(image) === entry.image.sha256,
  );
  if (!first || !second || first.turns === "describe" || second.turns === "describe") throw new Error("no turns");
  const { system } = first;
  expect(promptText(vicunaV0.render(first.turns, { system: system ?? "other" }))).toBe(
    "###Human: <Img><ImageHere></Img> Describe this image in detail. Give as many details as possible. Say everything you see.###Assistant: ",
  );
  const [said, more] = [await answerTo(first), await answerTo(second)];
  expect(second.turns.slice(1)).toEqual([
    { role: "assistant", text: said },
    { role: "user", text: "Continue" },
  ]);
  const { text, outcome } = joined(said, more);
  expect(entry.current).toMatchObject({
    kind: "described",
    author: "tiny",
    text,
    prompt: "Describe this image in detail. Give as many details as possible. Say everything you see.",
    details: { continuations: [outcome], decoding: drawing.decoding },
  });
  expect(entry.current.details.promptTokens).toBeGreaterThan(2 * engine.model.tokensPerImage);
  expect(entry.current.details.completionTokens).toBeGreaterThan(0);
  expect(new Set(Object.values(textsBySha256(store))).size).toBeGreaterThan(count / 2);
});

test("continues only short descriptions, as many times as requested", async () => {
  const long = await project();
  expect(await describeImages(long, engine, { ...drawing, shortAnswer: 1 })).toMatchObject({
    described: count,
    continued: expect.any(Number),
  });
  const details = long.entries().map(({ current }) => current?.details);
  for (const { completionTokens = 0, continuations } of details.filter((some) => some !== undefined)) {
    if (completionTokens > 3) expect(continuations).toEqual([]);
  }
  const short = await project();
  await describeImages(short, engine, { ...drawing, continues: 3 });
  const lengths = short.entries().map(({ current }) => [current?.details.continuations].flat().length);
  expect(Math.max(...lengths)).toBe(3);
});

test("the model's own prompt; not continued by default", async () => {
  const store = await project();
  const { engine: heard, asked } = listening();
  await describeImages(store, heard, { ...drawing, promptStyle: "describe" });
  expect(asked.every(({ turns }) => turns === "describe")).toBe(true);
  expect(asked).toHaveLength(count);
  expect(store.entries()[0]?.current).toMatchObject({ prompt: "describe", details: { continuations: [] } });
});

test.each([
  ["A cat.", "It sleeps.", "A cat. It sleeps.", "added"],
  ["A cat", ", and a dog.", "A cat, and a dog.", "added"],
  ["A cat.", "A cat. It sleeps.", "A cat. It sleeps.", "added"],
  ["A cat.", "", "A cat.", "empty"],
  ["A cat.", "A cat.", "A cat.", "repeated"],
  ["A dog.\nA  Cat.", "a cat.", "A dog.\nA  Cat.", "repeated"],
  ["", "A cat.", "A cat.", "added"],
  ["", "", "", "empty"],
])("%j and %j are joined to %j", (text, more, whole, outcome) => {
  expect(joined(text, more)).toEqual({ text: whole, outcome });
});

test("describes each image once; texts do not depend on the number of concurrent images", async () => {
  const [together, single] = [await project(), await project()];
  await describeImages(together, engine, drawing);
  await describeImages(single, engine, { ...drawing, parallel: 1 });
  expect(textsBySha256(single)).toEqual(textsBySha256(together));
  const { engine: heard, asked } = listening();
  expect(await describeImages(together, heard, drawing)).toMatchObject({ described: 0, completionTokens: 0 });
  expect(asked).toEqual([]);
});

describe("failures", () => {
  test("of an image are recorded, do not affect others, and are retried up to three times", async () => {
    const broken = join(folder, "broken");
    await paintImages(broken, 4);
    writeFileSync(join(broken, "garbage.png"), "no image");
    const store = await project(broken);
    rmSync(join(broken, "000.png"));
    appendFileSync(join(broken, "001.png"), "more");
    const failures: string[] = [];
    const onFailure = (_: unknown, message: string) => failures.push(message);
    const options = { ...drawing, onFailure };
    expect(await describeImages(store, engine, options)).toMatchObject({ described: 2, failed: 3, givenUp: 0 });
    expect(failures.sort()).toEqual([
      expect.stringMatching(/000\.png does not exist any more/),
      expect.stringMatching(/001\.png has changed since it was added to the project/),
      expect.stringMatching(/garbage\.png is not an image that can be read/),
    ]);
    expect(await describeImages(store, engine, options)).toMatchObject({ described: 0, failed: 3, givenUp: 0 });
    expect(await describeImages(store, engine, options)).toMatchObject({ failed: 3 });
    expect(await describeImages(store, engine, options)).toMatchObject({ failed: 0, givenUp: 3 });
    expect(await describeImages(store, engine, { ...options, tries: 4 })).toMatchObject({ failed: 3 });
  });

  test("by an invalid option end the step, and are not recorded for an image", async () => {
    const store = await project();
    const options = { ...drawing, decoding: { maxNewTokens: 100_000 } };
    await expect(describeImages(store, engine, options)).rejects.toThrow("maxNewTokens is 100000");
    expect(store.failures("describe").size).toBe(0);
  });

  test("of the engine are retried once; a second one ends the step", async () => {
    const lost = (times: number): Engine => ({
      ...listening().engine,
      async *generate(question, signal) {
        if (times-- > 0) throw new EngineLostError("The engine broke down");
        yield* engine.generate(question, signal);
      },
    });
    const store = await project();
    await expect(describeImages(store, lost(99), { ...drawing, parallel: 2 })).rejects.toThrow(EngineLostError);
    expect(store.failures("describe").size).toBe(1);
    expect(await describeImages(store, lost(1), { ...drawing, parallel: 1 })).toMatchObject({ described: count });
  });
});

test("an aborted call keeps its texts; the next one describes the rest", async () => {
  const store = await project();
  const controller = new AbortController();
  const onProgress = (done: number) => done === 5 && controller.abort(new Error("stopped"));
  const options = { ...drawing, parallel: 2, onProgress };
  await expect(describeImages(store, engine, options, controller.signal)).rejects.toThrow("stopped");
  const done = store.entries().filter(({ current }) => current).length;
  expect(done).toBeGreaterThanOrEqual(5);
  expect(done).toBeLessThan(count);
  expect(await describeImages(store, engine, drawing)).toMatchObject({ described: count - done });
});

test("two concurrent runs describe each image once", async () => {
  const store = await project();
  const reports = await Promise.all([describeImages(store, engine, drawing), describeImages(store, engine, drawing)]);
  expect(reports.reduce((sum, { described }) => sum + described, 0)).toBe(count);
  expect(store.entries().every(({ versions }) => versions === 1)).toBe(true);
});

test("resumes with the same texts after being killed", {
  timeout: 180_000,
}, async () => {
  const path = join(folder, "killed.db");
  const options = ["--model", model, "--temperature", "1", "--max-new-tokens", "6", "--seed", "3"];
  const entries = () => {
    const store = CurationStore.open(path, { create: true });
    const found = store.entries();
    store.close();
    return found;
  };
  const images = () => entries().length;
  const described = () => entries().filter(({ current }) => current).length;
  // Killed before the project exists, as soon as its images are added, and after one more text, then two more.
  for (const texts of [undefined, 0, 1, 2]) {
    // The dataset is needed until its images are in the project.
    const given = texts === undefined || texts === 0 ? [data] : [];
    const child = start(["curate", "describe", ...given, "--project", path, "--parallel", "2", ...options]);
    const ended = outcome(child);
    if (texts !== undefined) {
      const before = described();
      await until(() => images() === count && described() >= before + texts, 60_000);
    }
    expect(child.kill("SIGKILL")).toBe(true);
    await ended;
  }
  expect(described()).toBeGreaterThan(0);
  expect(described()).toBeLessThan(count);
  expect(await minigpt4(["curate", "describe", "--project", path, ...options])).toMatchObject({ code: 0 });
  const undisturbed = await project();
  await describeImages(undisturbed, engine, {
    ...drawing,
    decoding: { temperature: 1, maxNewTokens: 6, seed: 3 },
  });
  const store = CurationStore.open(path);
  onTestFinished(() => store.close());
  expect(store.entries()).toHaveLength(count);
  expect(store.entries().every(({ versions }) => versions === 1)).toBe(true);
  expect(textsBySha256(store)).toEqual(textsBySha256(undisturbed));
  expect(store.failures("describe").size).toBe(0);
});
