import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readCurationRecipe } from "../../src/curation/recipe.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const paper = join(import.meta.dirname, "../../recipes/curate.yaml");

test("the bundled recipe has the paper's numbers", async () => {
  const { recipe, deprecated } = await readCurationRecipe(paper);
  expect(deprecated).toEqual([]);
  expect(recipe.images.count).toBe(5000);
  expect(recipe.describe).toMatchObject({ prompt: "paper", short_answer: 80, continues: 1 });
  expect(recipe.export).toMatchObject({ folder: "cc_sbu_align", unreviewed: false });
});

test("most keys have defaults; settings replace and remove keys", async () => {
  const path = join(folder, "small.yaml");
  writeFileSync(path, "images: { path: photos }\ndescribe: { model: nano }\npolish: { model: a }\n");
  const { recipe } = await readCurationRecipe(path, ["polish=null", "images.count=7"]);
  expect(recipe).toEqual({
    project: "curation.db",
    images: { path: "photos", count: 7, seed: 0 },
    describe: { model: "nano", device: "auto" },
    filter: {},
  });
});

test("deprecated keys are still read, in the file and in settings, and each is reported once", async () => {
  const path = join(folder, "old.yaml");
  writeFileSync(path, "pictures: { path: photos, layout: coco, count: 3 }\ndescribe: { model: nano }\n");
  const { recipe, deprecated } = await readCurationRecipe(path, ["pictures.count=7", "images.layout=csv"]);
  expect(recipe.images).toEqual({ path: "photos", format: "csv", count: 7, seed: 0 });
  expect(deprecated).toEqual([
    "pictures is deprecated; use images",
    "images.layout is deprecated; use images.format",
    "pictures.count is deprecated; use images.count",
  ]);
});

test.each([
  ["images: { path: p }\ndescribe: { model: m,\n  promt: paper }\n", /:2: describe: Unrecognized key: "promt"/],
  ["images: { path: p }\ndescribe:\n  model: m\n  prompt: poem\n", /:4: describe\.prompt: /],
  [
    "images: { path: p }\ndescribe: { model: m }\npolish: { api_key: sk-1 }\n",
    /:3: polish: Unrecognized key: "api_key"/,
  ],
  ["describe: { model: m }\n", /: images: /],
  ["images: [", /yaml: /],
])("an error names the line and the key: %j", async (text, message) => {
  const path = join(folder, "wrong.yaml");
  writeFileSync(path, text);
  await expect(readCurationRecipe(path)).rejects.toThrow(message);
});
