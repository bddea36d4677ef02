import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { modelPath } from "../../src/chat/models.ts";
import { openEmbedder, WordSpaceEmbedder } from "../../src/engine/embedder.ts";
import type { EmbeddingInput } from "../../src/engine/engine.ts";
import { loadEngine } from "../../src/engine/load-engine.ts";
import type { LocalEngine } from "../../src/engine/local-engine.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { openImageEncoder } from "../../src/generation/load.ts";
import { readImage } from "../../src/images/decode.ts";
import { headNames } from "../../src/models/contrastive-head.ts";
import type { MiniGPT4Config } from "../../src/models/minigpt4.ts";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { captionArrays, contrastiveLoss, initialContrastive } from "../../src/training/stages/contrastive-stage.ts";
import { skipWithout } from "../helpers/capabilities.ts";
import { image } from "../helpers/cli-command.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { byteTokenizer, randomLlama, tinyConfig } from "../helpers/tiny-llama.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";
import { inMemory, normal } from "../helpers/weights-in-memory.ts";

const folder = temporaryFolder();
const cat = image("cat.jpg");
const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);

describe("a tiny model with a head", () => {
  const table = "model.embed_tokens.weight";
  let engine: LocalEngine;
  let size: number;
  beforeAll(async () => {
    const llm = await openCheckpoint(join(goldenRoot, "mha", "llama-safetensors"));
    const [vocabSize = 0, hiddenSize = 0] = llm.tensors.get(table)?.shape ?? [];
    size = hiddenSize;
    const captions = [[1, 2, 3]];
    const values = await llm.readFloat32(table);
    await llm.close();
    const { log_scale: _, ...head } = initialContrastive(
      captions,
      values,
      { vocabSize, hiddenSize },
      { hasHead: true },
    );
    const weights = head[headNames.wordWeight];
    // Only what no caption has counts at first; let all words count, and one with another weight.
    weights?.data.fill(1).fill(3, 40, 60);
    await writeSafetensors(join(folder, "head.safetensors"), head);
    await writeSafetensors(join(folder, "silent.safetensors"), {
      ...head,
      [headNames.wordWeight]: ndarray("float32", [vocabSize, 1], new Float32Array(vocabSize).fill(-1)),
    });
    await writeSafetensors(join(folder, "other.safetensors"), {
      ...head,
      [headNames.wordWeight]: ndarray("float32", [7], new Float32Array(7)),
    });
    engine = await load("head");
  });
  afterAll(() => engine.close());

  function load(head: string): Promise<LocalEngine> {
    const path = tinyModel(folder, `with-${head}`, ({ weights }) => ({
      weights: { ...weights, contrastive: `../${head}.safetensors` },
    }));
    return loadEngine(path, "tiny");
  }

  test("the engine embeds images and texts in order", async () => {
    expect(engine.model.embeddingSize).toBe(size);
    const inputs: EmbeddingInput[] = [
      { text: "A cat" },
      { image: cat },
      { text: "a dog." },
      { image: new Uint8Array(readFileSync(cat)) },
      { text: "a cat!" },
      { image: image("rocket.jpg") },
    ];
    const [text, first, dog, second, same, rocket] = await engine.embed(inputs);
    for (const embedding of [text, first, dog, rocket]) {
      expect(embedding).toHaveLength(size);
      expect(Math.hypot(...(embedding ?? []))).toBeCloseTo(1, 5);
    }
    // A path and its bytes are one image; texts are cleaned as captions are.
    expect(second).toEqual(first);
    expect(same).toEqual(text);
    expect(dog).not.toEqual(text);
    expect(rocket).not.toEqual(first);
    expect((await engine.embed(inputs.slice(2, 3)))[0]).toEqual(dog);
    expect(await engine.embed([])).toEqual([]);
  });

  test("inputs without an embedding are refused, and the engine serves the next request", async () => {
    for (const [input, code, message] of [
      [{ text: "" }, "invalid_request", /has no words/],
      [{ text: " . !\n" }, "invalid_request", /has no words/],
      [{ image: new Uint8Array([1, 2, 3]) }, "invalid_image", /./],
      [{ image: join(folder, "missing.png") }, "invalid_image", /missing\.png/],
    ] as const) {
      await expect(engine.embed([{ text: "a cat" }, input])).rejects.toMatchObject({
        name: "RequestError",
        code,
        message: expect.stringMatching(message),
      });
    }
    await expect(engine.embed([{ text: "a cat" }], AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
    // A word without an end is cut, not read to its end.
    const [long, longer] = await engine.embed([{ text: "x".repeat(10_000) }, { text: "x".repeat(1_000_000) }]);
    expect(longer).toEqual(long);
  });

  test("a text whose words have no weight", async () => {
    const silent = await load("silent");
    await expect(silent.embed([{ text: 'the "\u001b[31m' }])).rejects.toMatchObject({
      code: "invalid_request",
      message: String.raw`No word of "the \u001b[31m" has a weight in this model, so the text has no embedding`,
    });
    await silent.close();
  });

  test("weights of another model, a missing file, and a model without a head", async () => {
    await expect(load("other")).rejects.toThrow(
      /other\.safetensors: tensor "word_weight\.weight" is \[7\], but this network needs \[\d+, 1\]/,
    );
    await expect(load("nowhere")).rejects.toThrow(/nowhere\.safetensors/);
    const without = await loadEngine(tinyModel(folder, "without"), "tiny");
    expect(without.model.embeddingSize).toBeUndefined();
    await expect(without.embed([{ text: "a cat" }])).rejects.toMatchObject({
      code: "invalid_request",
      message: "The model tiny has no contrastive head, so it has no embeddings",
    });
    await without.close();
  });
});

test("similarities are the same as in training", async () => {
  const llm = tinyConfig(258);
  const width = llm.hiddenSize;
  const config: MiniGPT4Config = { encoder: { type: "efficientnet_lite0", imageSize: 224 }, llm };
  const words = randomLlama(llm, 1);
  const texts = ["a dog", "two cats", "the sea"];
  const ids = texts.map((text) => byteTokenizer.encode(` ${text}`));
  const initial = initialContrastive(ids, await words.readFloat32("model.embed_tokens.weight"), llm, { hasHead: true });
  const head = inMemory({
    ...initial,
    [headNames.wordWeight]: normal([258, 1], 2),
    [headNames.imageShift]: normal([width], 3),
  });
  // With a projection that changes nothing, the features are the image tokens.
  const identity = Float32Array.from({ length: width * width }, (_, i) => Number(i % (width + 1) === 0));
  const projection = inMemory({
    "llama_proj.weight": ndarray("float32", [width, width], identity),
    "llama_proj.bias": ndarray("float32", [width], new Float32Array(width)),
  });
  const tokens = normal([3, 4, width], 4);
  const graph = new Graph();
  const image = new Weights(graph, projection);
  const parts = { encoder: image, qformer: image, projection: image, llm: new Weights(graph, words) };
  const features = graph.input("features", "float32", ["images", 4, width]);
  const loss = contrastiveLoss(parts, new Weights(graph, head), features, config, { depth: "qformer" });
  const { loss: trained } = await evaluate(graph, { loss }, { features: tokens, ...captionArrays(ids) });

  const headParts = { head, llm: words, config: llm, tokenizer: byteTokenizer, tokensPerImage: 4 };
  const embedder = await WordSpaceEmbedder.create(headParts);
  const ofTexts = await embedder.embedTexts(texts);
  const rows = Array.from({ length: 12 }, (_, i) => tokens.data.subarray(i * width, (i + 1) * width));
  const images = await Promise.all([0, 4, 8].map((start) => embedder.embedImage(rows.slice(start, start + 4))));
  await embedder.close();
  const scores = images.map((one) => ofTexts.map((text) => dot(one, text) / 0.07));
  const columns = scores.map((_, i) => scores.map((row) => row[i] as number));
  const cost = (table: number[][]) =>
    table.reduce((sum, row, i) => {
      const total = Math.log(row.reduce((part, score) => part + Math.exp(score), 0));
      const mean = row.reduce((part, score) => part + score, 0) / row.length;
      return sum + (total - 0.9 * (row[i] as number) - 0.1 * mean) / table.length;
    }, 0);
  expect(trained.data[0]).toBeCloseTo((cost(scores) + cost(columns)) / 2, 3);
});

test("nano finds the texts of four example images; the raccoon is not expected to match", async (context) => {
  const model = await openModelFolder(modelPath("nano"), { offline: true }).catch((error: Error) => error);
  if (model instanceof Error) return skipWithout(context, "language-model", model.message);
  const reader = await openImageEncoder(model);
  const embedder = await openEmbedder(model);
  await model.close();
  if (!embedder) throw new Error("nano has no contrastive head");
  expect(embedder.size).toBe(576);
  const own = {
    "cat.jpg": "a cat lying on a blanket",
    "coffee.jpg": "a cup of coffee on a table",
    "rocket.jpg": "a rocket is launched into the sky",
    "astronaut.jpg": "an astronaut in an orange suit",
  };
  const others = ["a raccoon in a tree", "a dog running in the grass", "people on a beach", "a man climbing a rock"];
  const texts = [...Object.values(own), ...others];
  const embeddings = await embedder.embedTexts(texts);
  const found: Record<string, string | undefined> = {};
  for (const name of Object.keys(own)) {
    const embedding = await embedder.embedImage(await reader.encode(await readImage(image(name))));
    const scores = embeddings.map((text) => dot(embedding, text));
    found[name] = texts[scores.indexOf(Math.max(...scores))];
  }
  await reader.close();
  await embedder.close();
  expect(found).toEqual(own);
});
