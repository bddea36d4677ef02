import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import { listModels, modelPath } from "../../src/chat/models.ts";
import { releasedFolder } from "../../src/convert/released.ts";
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
const other = join(golden, "gqa/images/large.jpg");

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

test("the beginning of a description is part of the text and of the prompt", async () => {
  const begins_with = "A photo of";
  const model = await load({ describe: { ...config.describe, begins_with } });
  const described = await model.describe(image, short);
  expect(described.startsWith(begins_with)).toBe(true);
  await model.close();
  const prompted = await load({ describe: { ...config.describe, prompt: config.describe.prompt + begins_with } });
  expect(described).toBe((begins_with + (await prompted.describe(image, short))).trim());
  await prompted.close();
});

describe("several images", () => {
  test("are described in one batch, in their order", async () => {
    await using model = await load();
    const images = [image, other, await readFile(image)];
    const alone = [];
    for (const one of images) alone.push(await model.describe(one, short));
    expect(await model.describe(images, short)).toEqual(alone);
    expect(await model.describe([], short)).toEqual([]);
    // All of them are requested before any of them ends, so that the engine puts them into one batch.
    const order: string[] = [];
    const { engine } = model;
    const generate = engine.generate.bind(engine);
    vi.spyOn(engine, "generate").mockImplementation(async function* (request, signal) {
      order.push("request");
      for await (const event of generate(request, signal)) {
        if (event.kind === "end") order.push(event.kind);
        yield event;
      }
    });
    await model.describe(images, short);
    expect(order).toEqual(["request", "request", "request", "end", "end", "end"]);
  });

  test("an error names its image, by path or by position", async () => {
    await using model = await load();
    await expect(model.describe([image, join(folder, "gone.png")], short)).rejects.toThrow(/gone\.png cannot be read/);
    const damaged = model.describe([image, new Uint8Array(9)], short);
    await expect(damaged).rejects.toThrow(/^Image 2 of 2: The image in memory is not an image/);
    await expect(damaged).rejects.toMatchObject({ name: "RequestError", code: "invalid_image" });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(model.describe([image, other], { ...short, signal })).rejects.toThrow("enough");
    expect(await model.describe([image], short)).toHaveLength(1);
  });
});

test("a conversation is saved and continued on another model instance", async () => {
  const model = await load();
  const chat = model.chat({ system: "Be brief." });
  await chat.answer("What is this?", { ...short, images: [image] });
  const saved = JSON.stringify(chat);
  const { text } = await chat.answer("And now?", short);
  await model.close();
  await using again = await load();
  const continued = again.chat({ from: JSON.parse(saved) });
  expect((await continued.answer("And now?", short)).text).toBe(text);
  expect(continued.history).toEqual(chat.history);
  expect(() => again.chat({ from: JSON.parse('{"version":1}') })).toThrow(/not a saved conversation[\s\S]*turns/);
});

test("a closed model refuses requests and says how to load it again; closing twice has no effect", async () => {
  const model = await load();
  const chat = model.chat();
  const running = chat.answer("What?", { images: [image], maxNewTokens: 400, stop: [] } as object);
  running.catch(() => {});
  for await (const _ of model.chat().ask("What?", { images: [image] })) break;
  await Promise.all([model.close(), model.close()]);
  await model.close();
  const closed = { code: "model_closed", message: "The model is closed. Load it again with MiniGPT4.load()." };
  await expect(running).rejects.toMatchObject(closed);
  await expect(model.describe(image)).rejects.toMatchObject(closed);
  await expect(model.describe([image, other])).rejects.toMatchObject(closed);
  await expect(chat.answer("What?", { images: [image] })).rejects.toMatchObject(closed);
  await expect(model.engine.embed([{ image }])).rejects.toMatchObject(closed);
});

test("`await using` closes the model", async () => {
  let used: MiniGPT4;
  {
    await using model = await load();
    used = model;
    expect(await model.describe(image, short)).not.toBe("");
  }
  await expect(used.describe(image, short)).rejects.toMatchObject({ code: "model_closed" });
});

describe("listModels", () => {
  test("lists what comes with the package, what was pulled, and what can be pulled", async () => {
    const cache = join(folder, "cache");
    const pulled = releasedFolder(cache, "minigpt4-7b", "int8");
    await mkdir(pulled, { recursive: true });
    await writeFile(join(pulled, "config.json"), "{}");
    const models = await listModels({ cacheFolder: cache });
    expect(models).toEqual([
      { name: "nano", status: "shipped", path: expect.stringMatching(/models.nano$/) },
      { name: "minigpt4-7b-int8", status: "pulled", path: pulled },
      { name: "minigpt4-13b", status: "available" },
    ]);
    for (const { name, path } of models) if (path) expect(modelPath(name, cache)).toBe(path);
  });
});

describe("a model that cannot be used is refused with the file and the reason", () => {
  test.each([
    ["other keys", { colour: "red" }, /config\.json does not describe a MiniGPT-4:\s.*colour/],
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
    const missing = MiniGPT4.load("no-such-name");
    await expect(missing).rejects.toThrow('No model "no-such-name"');
    await expect(missing).rejects.toMatchObject({ name: "MiniGPT4Error", code: "model_not_found" });
    await expect(MiniGPT4.load("minigpt4-7b", { pull: { cacheFolder: folder } })).rejects.toMatchObject({
      code: "model_not_found",
      message: expect.stringContaining("minigpt4 pull minigpt4-7b"),
    });
    await expect(MiniGPT4.load(golden)).rejects.toThrow(`${golden} is not a model folder: it has no config.json`);
  });
});
