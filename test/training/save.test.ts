import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openParts } from "../../src/training/parts.ts";
import { readMiniGPT4Recipe } from "../../src/training/recipe.ts";
import { saveModelFolder } from "../../src/training/save.ts";
import { writeRecipe } from "../helpers/walls.ts";

const folder = await mkdtemp(join(tmpdir(), "minigpt4-save-"));
afterAll(() => rm(folder, { recursive: true }));

test.each([
  { conversation: "chatml", text: "<ImageHere> A photo of", prompt: "<ImageHere>", begins: " A photo of" },
  {
    conversation: "vicuna-v0",
    text: "###Human: <Img><ImageHere></Img> Describe this image in detail. ###Assistant: ",
    prompt: "###Human: <Img><ImageHere></Img> Describe this image in detail. ###Assistant: ",
    begins: "",
  },
  {
    conversation: "chatml",
    text: "<|im_start|>user\n<ImageHere>\nWhat is this?<|im_end|>\n<|im_start|>assistant\nIt is",
    prompt: "<|im_start|>user\n<ImageHere>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n",
    begins: "It is",
  },
])("a description begins with what the prompt puts into the assistant's mouth: $text", async (expected) => {
  const path = await writeRecipe(folder);
  const recipe = await readMiniGPT4Recipe(path, [
    `model.prompts=${JSON.stringify([{ text: expected.text, end_sym: "###" }])}`,
    `model.conversation=${expected.conversation}`,
  ]);
  const parts = await openParts(recipe);
  await saveModelFolder(recipe, parts, {});
  await parts.close();
  const { describe, prompt_template } = JSON.parse(await readFile(join(folder, "out", "config.json"), "utf8"));
  expect(prompt_template).toBe(expected.conversation);
  expect(describe).toEqual({ prompt: expected.prompt, begins_with: expected.begins, stop: ["###"] });
});
