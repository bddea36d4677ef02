import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Random } from "../../../src/tensor/random.ts";
import { loadTokenizer } from "../../../src/tokenizers/load.ts";
import type { MiniGPT4Recipe } from "../../../src/training/recipe.ts";
import { readMiniGPT4Recipe } from "../../../src/training/recipe.ts";
import { answerTokens, choosePrompt, readPrompts, type TrainingPrompt } from "../../../src/training/stages/texts.ts";
import { goldenRoot } from "../../helpers/golden-set.ts";
import { writeRecipe } from "../../helpers/walls.ts";

const folder = await mkdtemp(join(tmpdir(), "prompts-"));
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

const recipe = await writeRecipe(folder);
const tokenizer = await loadTokenizer(join(goldenRoot, "gqa", "llama-safetensors"));

async function recipeWith(model: Readonly<Record<string, unknown>>): Promise<MiniGPT4Recipe> {
  const settings = Object.entries(model).map(([key, value]) => `model.${key}=${JSON.stringify(value)}`);
  return readMiniGPT4Recipe(recipe, settings);
}

const promptsOf = async (model: Readonly<Record<string, unknown>>) => readPrompts(await recipeWith(model), tokenizer);

async function file(content: string): Promise<string> {
  const path = join(folder, `${Math.random()}.txt`);
  await writeFile(path, content);
  return path;
}

/** The prompt in words again. */
function written({ pieces }: TrainingPrompt): string {
  return pieces.map((piece) => (piece === "image" ? "<ImageHere>" : tokenizer.decode(piece.ids))).join("");
}

test("without prompts the image stands alone, behind the token that begins everything", async () => {
  const [prompt, ...others] = await promptsOf({});
  expect(others).toEqual([]);
  expect(prompt).toMatchObject({ text: "<ImageHere>", endSym: "\n", ratio: 1 });
  expect(prompt?.pieces).toEqual([{ ids: [tokenizer.bosId] }, "image"]);
});

test("of a prompt file the lines with an image are taken, as they are", async () => {
  const prompt_path = await file(
    "<Img><ImageHere></Img> Describe this image in detail.\r\n\nA line without an image.\n  What is in <ImageHere>? $& {}\n",
  );
  const prompts = await promptsOf({ prompt_path });
  expect(prompts.map(({ text }) => text)).toEqual([
    "<Img><ImageHere></Img> Describe this image in detail.",
    "  What is in <ImageHere>? $& {}",
  ]);
  expect(prompts.map(({ ratio }) => ratio)).toEqual([1, 1]);
});

test("each prompt is wrapped in the template, whatever it holds", async () => {
  const prompts = await promptsOf({
    prompt_path: await file("Look: <ImageHere>, $1 $&"),
    prompts: [{ text: "<Img><ImageHere></Img> Say {}.", end_sym: "</s>", sample_ratio: 3 }],
    prompt_template: "###Human: {} ###Assistant: ",
    end_sym: "###",
  });
  expect(prompts).toMatchObject([
    { text: "###Human: <Img><ImageHere></Img> Say {}. ###Assistant: ", endSym: "</s>", ratio: 3 },
    { text: "###Human: Look: <ImageHere>, $1 $& ###Assistant: ", endSym: "###", ratio: 1 },
  ]);
  for (const prompt of prompts) {
    expect(written(prompt)).toContain(prompt.text);
    expect(prompt.pieces.filter((piece) => piece === "image")).toHaveLength(1);
  }
});

test("a prompt file that is missing, or has no image, is named", async () => {
  const missing = join(folder, "missing.txt");
  await expect(promptsOf({ prompt_path: missing })).rejects.toThrow(`model.prompt_path: ${missing} cannot be read`);
  const empty = await file("Describe this image.\n");
  await expect(promptsOf({ prompt_path: empty })).rejects.toThrow(
    `model.prompt_path: no line of ${empty} contains <ImageHere>`,
  );
});

test("prompts are drawn in their proportions", async () => {
  const ratios = [1, 2.5, 0.5];
  const prompts = await promptsOf({
    prompts: ratios.map((sample_ratio, i) => ({ text: `${i} <ImageHere>`, sample_ratio })),
  });
  const counts = [0, 0, 0];
  const random = new Random(1);
  for (let i = 0; i < 8000; i++) {
    const drawn = prompts.indexOf(choosePrompt(prompts, random));
    counts[drawn] = (counts[drawn] as number) + 1;
  }
  // Six standard deviations of a binomial.
  ratios.forEach((ratio, i) => {
    const share = ratio / 4;
    expect(Math.abs((counts[i] as number) - 8000 * share)).toBeLessThan(6 * Math.sqrt(8000 * share * (1 - share)));
  });
});

test("an answer is its text and the end, cut where it is too long", () => {
  const text = "a dog on the grass, and a cat in the tree";
  const whole = answerTokens(text, "###", 200, tokenizer);
  expect(tokenizer.decode(whole)).toBe(`${text}###`);
  expect(whole[0]).not.toBe(tokenizer.bosId);
  expect(answerTokens(text, "###", 5, tokenizer)).toEqual(whole.slice(0, 5));
});
