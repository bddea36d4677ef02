import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readCurationRecipe } from "../../src/curation/recipe.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const paper = join(import.meta.dirname, "../../recipes/curate.yaml");

test("the recipe that comes with the package has the paper's numbers", async () => {
  const recipe = await readCurationRecipe(paper);
  expect(recipe.images.count).toBe(5000);
  expect(recipe.describe).toMatchObject({ prompt: "paper", short_answer: 80, continues: 1 });
  expect(recipe.export).toMatchObject({ folder: "cc_sbu_align", unreviewed: false });
});

test("little has to be said; settings replace and remove", async () => {
  const path = join(folder, "small.yaml");
  writeFileSync(path, "images: { path: photos }\ndescribe: { model: nano }\npolish: { model: a }\n");
  const recipe = await readCurationRecipe(path, ["polish=null", "images.count=7"]);
  expect(recipe).toEqual({
    project: "curation.db",
    images: { path: "photos", count: 7, seed: 0 },
    describe: { model: "nano", device: "auto" },
    filter: {},
  });
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
])("what is wrong is named with its line: %j", async (text, message) => {
  const path = join(folder, "wrong.yaml");
  writeFileSync(path, text);
  await expect(readCurationRecipe(path)).rejects.toThrow(message);
});
