import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AnswerOptions, Conversation } from "../../src/chat/conversation.ts";
import { ImageCache } from "../../src/engine/caches.ts";
import { imageFiles } from "../../src/engine/load-engine.ts";
import { type EngineParts, LocalEngine } from "../../src/engine/local-engine.ts";
import { RequestError } from "../../src/errors.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { generate, toPositions } from "../../src/generation/generate.ts";
import type { ImageTokens } from "../../src/generation/image-encoder.ts";
import { ImageEncoder, imageOutputs } from "../../src/generation/image-encoder.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import { Session } from "../../src/runtime/session.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Random } from "../../src/tensor/random.ts";
import { loadTokenizer } from "../../src/tokenizers/load.ts";
import { type Turn, vicunaV0 } from "../../src/tokenizers/prompts.ts";
import { GoldenSet } from "../helpers/golden-set.ts";

const folder = join(import.meta.dirname, "../reference/golden/gqa");
const image = (name: string) => join(folder, "images", name);
const short = { maxNewTokens: 12 };

let parts: EngineParts;
let engine: LocalEngine;
let scratch = "";
beforeAll(async () => {
  const set = await GoldenSet.load(folder);
  const config = set.config();
  const graph = new Graph();
  const checkpoint = await openCheckpoint(join(folder, "llama-safetensors"));
  const reader = await new ImageEncoder(
    config,
    await Session.create(graph, imageOutputs(graph, await set.weights(graph), config)),
  );
  parts = {
    model: { name: "golden", contextLength: config.llm.maxPositionEmbeddings, tokensPerImage: 5 },
    images: new ImageCache(reader, imageFiles()),
    llm: await createLanguageModel(checkpoint, config.llm),
    tokenizer: await loadTokenizer(join(folder, "llama-safetensors")),
    template: vicunaV0,
    describe: { prompt: "<ImageHere>", beginsWith: "", stop: [] },
  };
  engine = new LocalEngine(parts, { maxBatch: 4, prefixBytes: 2 ** 28 });
  await checkpoint.close();
  await set.close();
  scratch = await mkdtemp(join(tmpdir(), "conversation-"));
});
afterAll(async () => {
  await engine.close();
  await rm(scratch, { recursive: true });
});

const chat = () => new Conversation(engine);

async function said(
  conversation: Conversation,
  question: string,
  options: Parameters<Conversation["ask"]>[1] = {},
): Promise<string> {
  let text = "";
  for await (const piece of conversation.ask(question, { ...short, ...options })) text += piece;
  return text;
}

/** The answer to the last of these turns, read as a whole by a model that remembers nothing. */
async function fresh(turns: readonly Turn[], images: readonly ImageTokens[]): Promise<string> {
  const { llm, tokenizer } = parts;
  const sequence = toPositions(vicunaV0.render(turns), images, tokenizer);
  const options = { ...short, stop: vicunaV0.stop };
  let text = "";
  for await (const piece of generate(sequence, options, {
    model: llm,
    tokenizer,
    cache: llm.newCache(),
    random: new Random(0),
  }))
    text += piece;
  return text;
}

test("several turns and images: every answer is the same as without caches", async () => {
  const conversation = chat();
  const names = ["rgb.png", "large.jpg", "gray.png"];
  const tokens: ImageTokens[] = [];
  for (const name of names) tokens.push(await parts.images.encode(image(name)));
  const questions = [
    { text: "What is this?", images: [0] },
    { text: "And now?", images: [] },
    { text: "", images: [1, 2] },
  ];
  for (const { text, images } of questions) {
    const turns: Turn[] = [...conversation.history, { role: "user", text, images: images.length }];
    const given = images.map((i) => image(names[i] as string));
    expect(await said(conversation, text, { images: given })).toBe(await fresh(turns, tokens));
    expect(conversation.history).toHaveLength(turns.length + 1);
    expect(conversation.history.slice(0, -1)).toEqual(turns);
  }
});

test("another image gives another answer; the same image from memory gives the same", async () => {
  const ask = (image: string | Uint8Array) => said(chat(), "What is this?", { images: [image] });
  const answer = await ask(image("rgb.png"));
  expect(await ask(image("large.jpg"))).not.toBe(answer);
  expect(await ask(await readFile(image("rgb.png")))).toBe(answer);
});

describe("a question without a complete answer leaves the conversation as it was", () => {
  async function expectUnchanged(disturb: (conversation: Conversation) => Promise<void>) {
    const [disturbed, quiet] = [chat(), chat()];
    const first = { images: [image("rgb.png")] };
    expect(await said(disturbed, "What is this?", first)).toBe(await said(quiet, "What is this?", first));
    await disturb(disturbed);
    expect(disturbed.history).toEqual(quiet.history);
    const second = { images: [image("large.jpg")] };
    expect(await said(disturbed, "And this?", second)).toBe(await said(quiet, "And this?", second));
    expect(disturbed.history).toEqual(quiet.history);
  }

  test("cancelled", async () => {
    await expectUnchanged(async (conversation) => {
      const controller = new AbortController();
      const run = async () => {
        const options = { ...short, signal: controller.signal, images: [image("gray.png")] };
        for await (const _ of conversation.ask("Tell me more", options)) controller.abort();
      };
      await expect(run()).rejects.toThrow(/abort/i);
    });
  });

  test("cancelled before it started, also with beam search", async () => {
    await expectUnchanged(async (conversation) => {
      const signal = AbortSignal.abort();
      await expect(said(conversation, "More", { signal })).rejects.toThrow(/abort/i);
      await expect(said(conversation, "More", { signal, numBeams: 2 })).rejects.toThrow(/abort/i);
    });
  });

  test("no longer iterated", async () => {
    await expectUnchanged(async (conversation) => {
      for await (const _ of conversation.ask("Tell me more", { ...short, images: [image("gray.png")] })) break;
    });
  });

  test("with an image that cannot be read", async () => {
    await expectUnchanged(async (conversation) => {
      const broken = join(scratch, "broken.png");
      await writeFile(broken, "no image");
      const images = [image("gray.png"), broken];
      await expect(said(conversation, "And these?", { images })).rejects.toThrow(/broken\.png/);
    });
  });

  test("while the previous one is still being answered", async () => {
    await expectUnchanged(async (conversation) => {
      const answer = conversation.ask("Tell me more", { maxNewTokens: 100 });
      await answer.next();
      await expect(said(conversation, "Why?")).rejects.toThrow("still being answered. Wait for the end");
      await answer.return();
    });
  });

  test("empty", async () => {
    await expectUnchanged(async (conversation) => {
      await expect(said(conversation, " \n")).rejects.toThrow("The question is empty. Pass a text or an image.");
    });
  });
});

test("a prompt longer than the context is cut at its beginning", async () => {
  const conversation = chat();
  const { maxPositionEmbeddings } = parts.llm.config;
  const long = "a long question ".repeat(maxPositionEmbeddings / 4);
  const answer = await said(conversation, `first ${long}`);
  expect(answer).not.toBe("");
  expect(await said(chat(), `second ${long}`)).toBe(answer);
  expect(await said(conversation, "And then?")).not.toBe("");
});

test("beams come in one piece, and the best of one is greedy", async () => {
  const collect = async (options: AnswerOptions) => {
    const pieces: string[] = [];
    for await (const piece of chat().ask("What?", { ...short, ...options })) pieces.push(piece);
    return pieces;
  };
  expect(await collect({ numBeams: 3 })).toHaveLength(1);
  expect((await collect({ numBeams: 1 })).join("")).toBe(await said(chat(), "What?"));
});

test("seeds", async () => {
  const say = (seed: number) => said(chat(), "What?", { temperature: 1, seed });
  expect(await say(4)).toBe(await say(4));
  expect(await say(4)).not.toBe(await say(5));
});

test("a token limit of 0, or above the context, is refused", async () => {
  await expect(said(chat(), "What?", { maxNewTokens: 0 })).rejects.toThrow(
    "maxNewTokens is 0; expected a number from 1 to 511",
  );
  await expect(said(chat(), "What?", { maxNewTokens: 512 })).rejects.toThrow(RequestError);
});

test("answer returns the text of ask with its finish reason and token counts", async () => {
  const question = { images: [image("rgb.png")] };
  const conversation = chat();
  const first = await conversation.answer("What is this?", { ...short, ...question });
  expect(first.text).toBe((await said(chat(), "What is this?", question)).trim());
  expect(conversation.history).toEqual([
    { role: "user", text: "What is this?", images: 1 },
    { role: "assistant", text: first.text },
  ]);
  const events = [];
  const turns = [{ role: "user" as const, text: "What is this?", images: 1 }];
  for await (const event of engine.generate({ ...short, turns, images: question.images })) events.push(event);
  const end = events.at(-1);
  if (end?.kind !== "end") throw new Error("expected the end of the generation");
  expect(first.finishReason).toBe(end.reason);
  expect(first.usage.completionTokens).toBe(end.tokens);
  expect(first.usage.promptTokens).toBeGreaterThan(10);
  const cut = await chat().answer("What is this?", { ...question, maxNewTokens: 1 });
  expect(cut).toMatchObject({ finishReason: "length", usage: { completionTokens: 1 } });
  // The whole first turn is cached when the second one is asked.
  const second = await conversation.answer("And now?", short);
  expect(second.usage.promptTokens).toBeGreaterThan(first.usage.promptTokens);
  expect(second.usage.cachedTokens).toBeGreaterThanOrEqual(first.usage.promptTokens);
});

describe("a conversation as JSON", () => {
  async function conversation() {
    const saved = new Conversation(engine, "Be brief.");
    await saved.answer("What is this?", { ...short, images: [image("rgb.png"), await readFile(image("gray.png"))] });
    await saved.answer("And this?", { ...short, images: [image("large.jpg")] });
    return saved;
  }

  test("continues as the original does, with its images and its system prompt", async () => {
    const saved = await conversation();
    const text = JSON.stringify(saved);
    const restored = Conversation.fromJSON(engine, JSON.parse(text));
    expect(restored.history).toEqual(saved.history);
    expect(JSON.stringify(restored)).toBe(text);
    const [a, b] = [await saved.answer("And then?", short), await restored.answer("And then?", short)];
    expect([b.text, b.usage.promptTokens]).toEqual([a.text, a.usage.promptTokens]);
  });

  test("keeps paths as paths and bytes as base64", async () => {
    const { version, system, turns } = (await conversation()).toJSON();
    expect({ version, system }).toEqual({ version: 1, system: "Be brief." });
    const base64 = (await readFile(image("gray.png"))).toString("base64");
    expect(turns.map((turn) => ("images" in turn ? turn.images : turn.role))).toEqual([
      [image("rgb.png"), { base64 }],
      "assistant",
      [image("large.jpg")],
      "assistant",
    ]);
  });

  const turn = { role: "user", text: "a", images: [] };
  const end = { role: "assistant", text: "b" };
  test.each([
    ["not an object", "text", /expected object/],
    ["another version", { version: 2, turns: [] }, /reads conversations of version 1[\s\S]*version/],
    ["an unknown key", { version: 1, turns: [], extra: 1 }, /extra/],
    ["an unknown role", { version: 1, turns: [{ role: "system", text: "" }, end] }, /turns\[0\]\.role/],
    ["a text that is not one", { version: 1, turns: [{ ...turn, text: 5 }, end] }, /turns\[0\]\.text/],
    ["damaged base64", { version: 1, turns: [{ ...turn, images: [{ base64: "%%" }] }, end] }, /turns\[0\]\.images/],
    ["an image that is a number", { version: 1, turns: [{ ...turn, images: [7] }, end] }, /turns\[0\]\.images/],
    ["images in an answer", { version: 1, turns: [turn, { ...end, images: ["a.jpg"] }] }, /images/],
    ["a question without an answer", { version: 1, turns: [turn] }, /has no answer/],
    ["two answers in a row", { version: 1, turns: [end, end] }, /must alternate/],
    ["a polluted prototype", JSON.parse('{"__proto__":{"a":1},"version":1,"turns":[]}'), /__proto__/],
  ])("is refused if it has %s", (_, value, message) => {
    const restore = () => Conversation.fromJSON(engine, value);
    expect(restore).toThrow(RequestError);
    expect(restore).toThrow(/This is not a saved conversation/);
    expect(restore).toThrow(message);
  });
});
