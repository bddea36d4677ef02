/** Recipes, checkpoints and metrics of version 0.1 are still read: `fixtures/run-0.1` was written by it. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { type Metric, readMetrics } from "../../src/training/metrics/metrics.ts";
import { readRecipe } from "../../src/training/recipe.ts";
import { runRecipe } from "../../src/training/run.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { writeWalls } from "../helpers/walls.ts";

const fixtures = join(import.meta.dirname, "fixtures/run-0.1");
let folder: string;
let recipePath: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minigpt4-earlier-"));
  await writeWalls(join(folder, "data"));
  recipePath = join(folder, "recipe.yaml");
  const recipe = await readFile(join(fixtures, "recipe.yaml"), "utf8");
  await writeFile(recipePath, recipe.replaceAll("GOLDEN", join(goldenRoot, "mha")).replaceAll("FOLDER", folder));
});
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

const losses = (metrics: readonly Metric[], kind: "train" | "validation") =>
  metrics.flatMap((metric) => (metric.kind === kind ? [[metric.step, metric.loss] as const] : []));

test("deprecated keys of a recipe are read and reported once each", async () => {
  const { recipe, deprecated } = await readRecipe(recipePath, ["run.average_decay=0.5", "datasets.walls.validate=2"]);
  expect(recipe.run).toMatchObject({ ema_decay: 0.5, answers_per_image: 2 });
  expect(recipe.datasets.walls).toMatchObject({ format: "flickr8k", validation: 2 });
  expect(deprecated.toSorted()).toEqual([
    "datasets.walls.layout is deprecated; use datasets.walls.format",
    "datasets.walls.validate is deprecated; use datasets.walls.validation",
    "run.answers_per_picture is deprecated; use run.answers_per_image",
    "run.average_decay is deprecated; use run.ema_decay",
  ]);
});

test("a setting with a deprecated key overrides the file's current one", async () => {
  const path = join(folder, "current.yaml");
  await writeFile(path, (await readFile(recipePath, "utf8")).replace("average_decay", "ema_decay"));
  const { recipe } = await readRecipe(path, ["run.average_decay=0.25"]);
  expect(recipe.run).toMatchObject({ ema_decay: 0.25 });
});

test("a run is resumed from its checkpoint and takes the same steps", async () => {
  await cp(join(fixtures, "run"), join(folder, "run"), { recursive: true });
  const { recipe } = await readRecipe(recipePath);
  const messages: string[] = [];
  const out = await runRecipe(recipe, { resume: true, onMessage: (message) => messages.push(message) });
  expect(messages).toEqual([]);
  const found = await readMetrics(join(out, "metrics.jsonl"));
  const expected = await readMetrics(join(fixtures, "metrics.jsonl"));
  for (const kind of ["train", "validation"] as const) {
    const [own, theirs] = [losses(found, kind), losses(expected, kind)];
    expect(own.map(([step]) => step)).toEqual(theirs.map(([step]) => step));
    own.forEach(([step, loss], i) => {
      expect(loss, `${kind}, step ${step}`).toBeCloseTo(theirs[i]?.[1] as number, 4);
    });
  }
  const [trained, before] = await Promise.all(
    [out, fixtures].map(async (where) => {
      const file = await openSafetensors(join(where, "projection.safetensors"));
      const values = await file.readFloat32("llama_proj.weight");
      await file.close();
      return values;
    }),
  );
  trained?.forEach((value, i) => {
    expect(value).toBeCloseTo(before?.[i] as number, 3);
  });
});

test("samples that call their image a picture are read", async () => {
  const metrics = await readMetrics(join(fixtures, "metrics.jsonl"));
  const samples = metrics.flatMap((metric) => (metric.kind === "samples" ? metric.samples : []));
  expect(samples).toHaveLength(4);
  for (const { image, text } of samples) {
    expect(image).toMatch(/white\.png$/);
    expect(text).not.toBe("");
  }
});
