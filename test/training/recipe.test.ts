import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readRecipe } from "../../src/training/recipe.ts";

const nano = join(import.meta.dirname, "../../recipes/nano.yaml");
const folder = await mkdtemp(join(tmpdir(), "recipe-"));
afterAll(() => rm(folder, { recursive: true }));

async function written(change: (text: string) => string): Promise<string> {
  const path = join(folder, `${Math.random()}.yaml`);
  await writeFile(path, change(await readFile(nano, "utf8")));
  return path;
}

test("the recipe that comes with the package is valid", async () => {
  const recipe = await readRecipe(nano);
  expect(recipe.model.qformer.num_query_tokens).toBe(8);
  expect(recipe.datasets.flickr8k?.hold_out).toBe(100);
});

test("settings replace values, numbers as numbers", async () => {
  const recipe = await readRecipe(nano, ["run.init_lr=3e-5", "datasets.flickr8k.path=/data/a=b", "run.views=1"]);
  expect(recipe.run.init_lr).toBe(3e-5);
  expect(recipe.datasets.flickr8k?.path).toBe("/data/a=b");
  expect(recipe.run.views).toBe(1);
});

test("a wrong value is named with its file, line and key", async () => {
  const path = await written((text) => text.replace("weight_decay: 0.05", "weight_decay: much"));
  const line = (await readFile(path, "utf8")).split("\n").findIndex((text) => text.includes("weight_decay")) + 1;
  await expect(readRecipe(path)).rejects.toThrow(`${path}:${line}: run.weight_decay`);
});

test("unknown keys, broken YAML, broken settings and missing files are refused", async () => {
  await expect(readRecipe(await written((text) => `${text}\nextra: 1\n`))).rejects.toThrow(/extra/);
  await expect(readRecipe(await written(() => "a: [1"))).rejects.toThrow(/\.yaml: /);
  await expect(readRecipe(nano, ["run.init_lr"])).rejects.toThrow(/key\.key=value/);
  await expect(readRecipe(join(folder, "none.yaml"))).rejects.toThrow(/cannot be read/);
});
