import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import type { ModelFolderJson } from "../../src/models/model-folder.ts";

const golden = join(import.meta.dirname, "../reference/golden");
const image = join(golden, "gqa/images/rgb.png");
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "model-"));
  for (const file of ["eva_vit.pth", "blip2_qformer.pth", "minigpt4.pth"]) {
    await cp(join(golden, "gqa", file), join(folder, file));
  }
  await cp(join(golden, "mha/minigpt4.pth"), join(folder, "other.pth"));
});
afterAll(() => rm(folder, { recursive: true }));

const config: ModelFolderJson = {
  model_type: "minigpt4",
  encoder: {
    type: "eva_vit",
    image_size: 42,
    patch_size: 14,
    hidden_size: 88,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    intermediate_size: 352,
  },
  qformer: {
    num_query_tokens: 5,
    hidden_size: 60,
    num_hidden_layers: 3,
    num_attention_heads: 3,
    intermediate_size: 120,
    encoder_width: 88,
  },
  llm: join(golden, "gqa/llama-safetensors"),
  weights: { encoder: "eva_vit.pth", qformer: "blip2_qformer.pth", projection: "minigpt4.pth" },
  prompt_template: "vicuna-v0",
  describe: { prompt: "###Human: <Img><ImageHere></Img> Describe this image in detail. ###Assistant: ", stop: ["###"] },
};

async function load(change: object = {}): Promise<MiniGPT4> {
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, ...change }));
  return MiniGPT4.load(folder);
}

const short = { maxNewTokens: 8 };

test("describes images and talks about them, greedily the same each time", async () => {
  const model = await load();
  const described = await model.describe(image, short);
  expect(described).not.toBe("");
  expect(await model.describe(image, short)).toBe(described);
  expect(await model.describe(join(golden, "gqa/images/large.jpg"), short)).not.toBe(described);
  const chat = model.chat();
  let answer = "";
  for await (const piece of chat.ask("What is this?", { ...short, images: [image] })) answer += piece;
  expect(chat.history.map(({ role, text }) => [role, text])).toEqual([
    ["user", "What is this?"],
    ["assistant", answer.trim()],
  ]);
  await model.close();
});

test("the words that a description begins with are part of it and are read by the model", async () => {
  const begins_with = "A photo of";
  const model = await load({ describe: { ...config.describe, begins_with } });
  const described = await model.describe(image, short);
  expect(described.startsWith(begins_with)).toBe(true);
  await model.close();
  const prompted = await load({ describe: { ...config.describe, prompt: config.describe.prompt + begins_with } });
  expect(described).toBe((begins_with + (await prompted.describe(image, short))).trim());
  await prompted.close();
});

describe("a model that cannot be used is refused with the file and the reason", () => {
  test.each([
    ["other keys", { colour: "red" }, /config\.json is no description of a MiniGPT-4:\s.*colour/],
    ["no place for the image", { describe: { prompt: "Describe." } }, /ImageHere/],
    ["no weights", { weights: { ...config.weights, projection: "gone.pth" } }, /gone\.pth/],
    ["no language model", { llm: "no-such-model" }, /no-such-model/],
    [
      "another projection",
      { weights: { ...config.weights, projection: "other.pth" } },
      /other\.pth: tensor "llama_proj\.weight" is \[64, 48\], but this network needs \[96, 60\]/,
    ],
    ["another encoder", { encoder: { ...config.encoder, hidden_size: 90 } }, /eva_vit\.pth: tensor/],
  ])("%s", async (_, change, message) => {
    await expect(load(change)).rejects.toThrow(message);
  });

  test("no JSON", async () => {
    await writeFile(join(folder, "config.json"), "{");
    await expect(MiniGPT4.load(folder)).rejects.toThrow(/config\.json: is not valid JSON/);
  });

  test("no such model", async () => {
    await expect(MiniGPT4.load("no-such-name")).rejects.toThrow('There is no model "no-such-name"');
    await expect(MiniGPT4.load(golden)).rejects.toThrow(`${golden} is no model folder: it has no config.json`);
  });
});
