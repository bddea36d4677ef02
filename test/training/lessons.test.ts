import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { LanguageModel } from "../../src/chat/language-model.ts";
import { type OpenLlama, openLlama } from "../../src/models/open-llama.ts";
import { type LessonOptions, openLessons } from "../../src/training/lessons.ts";
import { Teacher } from "../../src/training/teacher.ts";

const pictures = [[[5, 6, 7], [8, 9], [10]], [[11, 12]], [[13], [14, 15]]];
const form = { before: [1, 3], lead: [20], end: [21, 22] };
let llm: OpenLlama;
let folder: string;
let options: LessonOptions & { path: string };
const read: number[] = [];

beforeAll(async () => {
  llm = await openLlama(join(import.meta.dirname, "../reference/golden/gqa/llama-safetensors"));
  folder = await mkdtemp(join(tmpdir(), "minigpt4-lessons-"));
});
afterAll(async () => {
  await llm.checkpoint.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  options = { form, path: join(folder, "lessons.safetensors"), onProgress: (done) => read.push(done), device: "cpu" };
  read.length = 0;
});

/** The probabilities of the token that follows, by the model that chats. */
async function probabilitiesAfter(ids: readonly number[]): Promise<number[]> {
  const model = await LanguageModel.create(llm.checkpoint, llm.config, { device: "cpu" });
  const scores = [...(await model.read([ids], model.newCache())).data] as number[];
  await model.release();
  const sum = scores.reduce((total, score) => total + Math.exp(score), 0);
  return scores.map((score) => Math.exp(score) / sum);
}

describe("lessons", () => {
  test("are what the model says after the picture's other texts", async () => {
    const lessons = await openLessons(llm, pictures, options);
    const text = pictures[0]?.[1] as number[];
    const predictions = lessons.get(text) ?? [];
    expect(predictions).toHaveLength(text.length + 1);
    const context = [1, 3, 20, 10, 21, 22, 20, 5, 6, 7, 21, 22, 20];
    for (const [i, { ids, probabilities }] of predictions.entries()) {
      const expected = await probabilitiesAfter([...context, ...text.slice(0, i)]);
      expect(probabilities[0]).toBeCloseTo(Math.max(...expected), 5);
      ids.forEach((id, k) => {
        expect(probabilities[k]).toBeCloseTo(expected[id] as number, 5);
      });
    }
  });

  test("need other texts", async () => {
    const lessons = await openLessons(llm, pictures, options);
    expect(lessons.has(pictures[1]?.[0] as number[])).toBe(false);
    expect(lessons.size).toBe(5);
  });

  test("are kept, and made anew for other texts or where their file is broken", async () => {
    const first = await openLessons(llm, pictures, options);
    read.length = 0;
    const second = await openLessons(llm, pictures, options);
    expect(read).toEqual([]);
    expect([...second.keys()]).toEqual([...first.keys()]);
    for (const [text, predictions] of second) {
      expect(predictions.map(({ ids }) => ids)).toEqual(first.get(text)?.map(({ ids }) => ids));
    }
    await openLessons(llm, pictures.slice(1), options);
    expect(read).toEqual([1]);
    await writeFile(options.path, "not a safetensors file");
    await openLessons(llm, pictures, options);
    expect(read).toEqual([1, 1, 2]);
  });

  test("leave out texts that the model has no positions for", async () => {
    const long = Array.from({ length: llm.config.maxPositionEmbeddings - 8 }, () => 5);
    const lessons = await openLessons(llm, [[long, [6, 7]]], options);
    const [first] = lessons.get(long) ?? [];
    const expected = await probabilitiesAfter([1, 3, 20]);
    expect(first?.probabilities[0]).toBeCloseTo(Math.max(...expected), 5);
  });
});

test("a teacher's part of each target is its share; what ends the answer takes the place of what it read as the end", async () => {
  const text = pictures[0]?.[0] as number[];
  const teacher = await Teacher.open(llm, pictures, 0.25, options);
  const lesson = (await openLessons(llm, pictures, options)).get(text) ?? [];
  const targets = teacher.targets(text, [28, 29]);
  expect(targets.map(({ id }) => id)).toEqual([...text, 28, 29]);
  const [first] = targets;
  const renamed = lesson[0]?.ids.map((id) => (id === 21 ? 28 : id));
  expect(first?.others?.ids).toEqual(renamed);
  const shares = first?.others?.shares ?? [];
  expect(shares[0]).toBeCloseTo(0.25 * (lesson[0]?.probabilities[0] as number));
  expect(shares.reduce((a, b) => a + b)).toBeLessThanOrEqual(0.25 + 1e-6);
  expect(targets[4]).toEqual({ id: 29 });
  const untaught = pictures[1]?.[0] as number[];
  expect(teacher.targets(untaught, [28])).toEqual([{ id: 11 }, { id: 12 }, { id: 28 }]);
});
