import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readRecipe } from "../../../src/training/recipe.ts";
import { targetTexts } from "../../../src/training/stages/texts.ts";
import { writeRecipe } from "../../helpers/walls.ts";

const folder = await mkdtemp(join(tmpdir(), "texts-"));
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

const path = await writeRecipe(folder);

/** What is learned of texts of the first data set. */
async function learned(texts: readonly string[], settings: readonly string[] = [], format = "flickr8k") {
  const { recipe } = await readRecipe(path, settings);
  return targetTexts(recipe, [{ format }])({
    pair: { name: "a.png", image: { path: "a.png" }, texts },
    dataset: 0,
  });
}

const said = ['  A Dog "runs" .', "Über den Fluß!"];

test("captions are cleaned; what was written for the second stage, and what the recipe wants, stays as it is", async () => {
  expect(await learned(said)).toEqual(["a dog runs", "über den fluß"]);
  expect(await learned(said, [], "cc_sbu_align")).toEqual(said);
  expect(await learned(said, ["datasets.walls.text_processor=none"])).toEqual(said);
  expect(await learned(said, ["datasets.walls.text_processor=blip_caption"], "cc_sbu_align")).toEqual([
    "a dog runs",
    "über den fluß",
  ]);
});

test("texts that are empty, or are so after cleaning, are left out", async () => {
  expect(await learned(["", " \n", "...", "A wall.", '"!"'])).toEqual(["a wall"]);
  expect(await learned(["..."], ["datasets.walls.text_processor=none"])).toEqual(["..."]);
  expect(await learned([])).toEqual([]);
});

test("an answer is filled in, with the article where it is wanted; no text is taken for a pattern", async () => {
  const answer = (text: string) => `datasets.walls.answer=${JSON.stringify(text)}`;
  expect(await learned(["Owl", "Dog"], [answer("{a text}")])).toEqual(["an owl", "a dog"]);
  expect(await learned(["Owl"], [answer("This is {a text}; {text}!")])).toEqual(["This is an owl; owl!"]);
  const sly = ["datasets.walls.text_processor=none", answer("[{text}]")];
  expect(await learned(["$& {text}"], sly)).toEqual(["[$& {text}]"]);
});

test("each dataset has its own settings; an unknown dataset is an error", async () => {
  const settings = ['datasets.doors={path: doors, answer: "door: {text}"}'];
  const { recipe } = await readRecipe(path, settings);
  const textsOf = targetTexts(recipe, [{ format: "flickr8k" }, { format: "cc_sbu_align" }]);
  const pair = { name: "a.png", image: { path: "a.png" }, texts: ["Wood ."] };
  expect(textsOf({ pair, dataset: 0 })).toEqual(["wood"]);
  expect(textsOf({ pair, dataset: 1 })).toEqual(["door: Wood ."]);
  expect(() => textsOf({ pair, dataset: 2 })).toThrow("a.png belongs to dataset 2, which the recipe does not have");
});
