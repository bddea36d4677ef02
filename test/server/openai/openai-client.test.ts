import OpenAI from "openai";
import { expect, test } from "vitest";
import type { GenerationRequest } from "../../../src/engine/engine.ts";
import { image } from "../../helpers/cli-command.ts";
import { clientOf, serve, shown, tinyEngine, until, WatchedEngine } from "../../helpers/running-server.ts";

const engine = await tinyEngine();

/** What the engine itself answers. */
async function direct(question: GenerationRequest): Promise<string> {
  let text = "";
  for await (const event of engine.generate(question)) if (event.kind === "text") text += event.text;
  return text.trim();
}

test("an image alone is described; a question becomes a conversation with its system text", async () => {
  const client = clientOf(await serve(engine));
  const described = await client.chat.completions.create({
    model: "tiny",
    max_tokens: 12,
    messages: [{ role: "user", content: shown("cat.jpg") }],
  });
  const images = [image("cat.jpg")];
  expect(described.choices[0]?.message.content).toBe(await direct({ turns: "describe", images, maxNewTokens: 12 }));
  const asked = await client.chat.completions.create({
    model: "tiny",
    max_tokens: 12,
    messages: [
      { role: "system", content: "Be brief." },
      { role: "developer", content: "Be kind." },
      { role: "user", content: [{ type: "text", text: "What is this?" }, ...shown("cat.jpg")] },
      { role: "assistant", content: "A cat. " },
      { role: "user", content: shown("coffee.jpg") },
      { role: "user", content: "And this?" },
    ],
  });
  const expected = await direct({
    system: "Be brief.\n\nBe kind.",
    turns: [
      { role: "user", text: "What is this?", images: 1 },
      { role: "assistant", text: "A cat." },
      { role: "user", text: "And this?", images: 1 },
    ],
    images: [image("cat.jpg"), image("coffee.jpg")],
    maxNewTokens: 12,
  });
  expect(asked.choices[0]?.message.content).toBe(expected);
  expect(expected).not.toBe(described.choices[0]?.message.content);
});

test("a stream has the same text in chunks, the finish reason and the usage", async () => {
  const client = clientOf(await serve(engine));
  const request = {
    model: "tiny",
    max_tokens: 15,
    messages: [{ role: "user" as const, content: shown("cat.jpg", "What is this?") }],
  };
  const whole = await client.chat.completions.create(request);
  const stream = await client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const pieces = chunks.flatMap(({ choices }) => choices[0]?.delta.content || []);
  expect(pieces.length).toBeGreaterThan(3);
  expect(pieces.join("")).toBe(whole.choices[0]?.message.content);
  expect(chunks[0]?.choices[0]?.delta.role).toBe("assistant");
  expect(chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? [])).toEqual(["length"]);
  expect(whole.choices[0]?.finish_reason).toBe("length");
  expect(whole.usage?.completion_tokens).toBe(15);
  expect(whole.usage?.total_tokens).toBe((whole.usage?.prompt_tokens ?? 0) + 15);
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 15 } });
  expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
});

test("the same seed samples the same choices; no seed samples new ones each time", async () => {
  const client = clientOf(await serve(engine));
  const draw = async (seed?: number) => {
    const { choices, usage } = await client.chat.completions.create({
      model: "tiny",
      n: 2,
      max_tokens: 10,
      seed,
      messages: [{ role: "user", content: "Hello" }],
    });
    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
    expect(usage?.completion_tokens).toBeGreaterThan(10);
    return choices.map(({ message }) => message.content);
  };
  const [first, second] = await draw(7);
  expect(first).not.toBe(second);
  expect(await draw(7)).toEqual([first, second]);
  expect((await draw(8))[0]).toBe(second);
  expect(await draw()).not.toEqual(await draw());
});

test("n streamed choices have their indices", async () => {
  const client = clientOf(await serve(engine));
  const request = {
    model: "tiny",
    n: 3,
    seed: 3,
    max_tokens: 8,
    messages: [{ role: "user" as const, content: "Hello" }],
  };
  const whole = await client.chat.completions.create(request);
  const texts = ["", "", ""];
  for await (const { choices } of await client.chat.completions.create({ ...request, stream: true })) {
    for (const { index, delta } of choices) texts[index] += delta.content ?? "";
  }
  expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
});

test("a completion ends before a stop string", async () => {
  const client = clientOf(await serve(engine));
  const ask = async (stop?: string | string[]) => {
    const { choices } = await client.chat.completions.create({
      model: "tiny",
      max_tokens: 20,
      stop,
      messages: [{ role: "user", content: "Hello" }],
    });
    return { text: choices[0]?.message.content ?? "", reason: choices[0]?.finish_reason };
  };
  const free = await ask();
  const stop = free.text.slice(12, 15);
  const expected = { text: free.text.slice(0, free.text.indexOf(stop)).trim(), reason: "stop" };
  expect(await ask(stop)).toEqual(expected);
  expect(await ask(["not there", stop])).toEqual(expected);
  expect(free.reason).toBe("length");
});

test("decoding is greedy unless the request asks for sampling", async () => {
  const watched = new WatchedEngine(engine);
  const client = clientOf(await serve(watched));
  const temperatureFor = async (decoding: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>) => {
    await client.chat.completions.create({
      model: "tiny",
      max_tokens: 1,
      messages: [{ role: "user", content: "Hello" }],
      ...decoding,
    });
    return watched.questions.at(-1)?.temperature;
  };
  expect(await temperatureFor({})).toBe(0);
  expect(await temperatureFor({ top_p: 0.9 })).toBe(1);
  expect(await temperatureFor({ n: 2 })).toBe(1);
  expect(await temperatureFor({ temperature: 0.3, n: 2 })).toBe(0.3);
  expect(await temperatureFor({ temperature: null })).toBe(0);
});

test("extensions reach the engine: beams, penalties, top_k", async () => {
  const watched = new WatchedEngine(engine);
  const client = clientOf(await serve(watched));
  const extensions = { num_beams: 2, length_penalty: 1.5, repetition_penalty: 1.2, top_k: 5 };
  const { choices } = await client.chat.completions.create({
    model: "tiny",
    max_completion_tokens: 5,
    messages: [{ role: "user", content: "Hello" }],
    ...extensions,
  });
  expect(watched.questions[0]).toMatchObject({
    numBeams: 2,
    lengthPenalty: 1.5,
    repetitionPenalty: 1.2,
    topK: 5,
    maxNewTokens: 5,
    overflow: "refuse",
  });
  expect(choices[0]?.message.content).not.toBe("");
});

test.each<[string, object, object]>([
  ["another model", { model: "gpt-4o" }, { status: 404, code: "model_not_found", param: "model" }],
  ["no messages", { messages: [] }, { status: 400, param: "messages" }],
  ["tools", { tools: [{ type: "function" }] }, { status: 400, code: "unsupported_parameter", param: "tools" }],
  ["JSON", { response_format: { type: "json_object" } }, { status: 400, param: "response_format" }],
  ["a penalty", { frequency_penalty: 1 }, { status: 400, param: "frequency_penalty" }],
  ["log probabilities", { logprobs: true }, { status: 400, param: "logprobs" }],
  ["five stop texts", { stop: ["a", "b", "c", "d", "e"] }, { status: 400, param: "stop" }],
  ["too hot", { temperature: 3 }, { status: 400, param: "temperature" }],
  ["too many tokens", { max_tokens: 512 }, { status: 400, code: "context_length_exceeded", param: "max_tokens" }],
  [
    "too long a text",
    { messages: [{ role: "user", content: "x ".repeat(100_000) }] },
    { status: 400, code: "context_length_exceeded" },
  ],
  ["an assistant's last word", { messages: [{ role: "assistant", content: "Yes" }] }, { status: 400 }],
  ["silence", { messages: [{ role: "user", content: " " }] }, { status: 400, param: "messages" }],
  [
    "audio",
    { messages: [{ role: "user", content: [{ type: "input_audio" }] }] },
    { status: 400, param: "messages[0].content[0].type" },
  ],
  ["a tool's message", { messages: [{ role: "tool", content: "4" }] }, { status: 400, param: "messages[0].role" }],
  [
    "a file as image",
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "file:///etc/passwd" } }] }] },
    { status: 400, code: "invalid_image_url" },
  ],
  [
    "a torn image",
    {
      stream: true,
      messages: [
        {
          role: "user",
          content: [{ type: "image_url", image_url: { url: shownUrl().slice(0, 4000) } }],
        },
      ],
    },
    { status: 400, code: "invalid_image" },
  ],
])("rejected with an OpenAI error: %s", async (_, change, expected) => {
  const client = clientOf(await serve(engine));
  const asked = client.chat.completions.create({
    model: "tiny",
    max_tokens: 5,
    messages: [{ role: "user", content: "Hello" }],
    ...change,
  });
  const error = await asked.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(OpenAI.APIError);
  expect(error).toMatchObject({ type: "invalid_request_error", ...expected });
});

function shownUrl(): string {
  const [part] = shown("cat.jpg");
  return part?.type === "image_url" ? part.image_url.url : "";
}

test("accepts unsupported parameters that have no effect", async () => {
  const client = clientOf(await serve(engine));
  const { choices } = await client.chat.completions.create({
    model: "tiny",
    max_tokens: 2,
    messages: [{ role: "user", content: "Hello", name: "Ada" }],
    tools: [],
    logprobs: false,
    response_format: { type: "text" },
    presence_penalty: 0,
    user: "ada",
    store: true,
    metadata: { a: "b" },
    parallel_tool_calls: true,
  });
  expect(choices).toHaveLength(1);
});

test("a client that disconnects cancels its generation and frees its slot", async () => {
  const watched = new WatchedEngine(engine);
  const client = clientOf(await serve(watched, { maxConcurrent: 1, maxQueue: 0 }));
  const request = { model: "tiny", max_tokens: 400, messages: [{ role: "user" as const, content: "Tell a story" }] };
  for (const stream of [true, false]) {
    watched.texts = 0;
    const controller = new AbortController();
    const asked = client.chat.completions
      .create({ ...request, stream }, { signal: controller.signal })
      .then(async (answer) => {
        if (Symbol.asyncIterator in answer) for await (const _ of answer);
      })
      .catch((error: unknown) => error);
    await until(() => watched.texts > 5);
    controller.abort();
    await asked;
    await until(() => watched.running === 0);
    const then = watched.texts;
    expect(then).toBeLessThan(300);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(watched.texts).toBe(then);
  }
  await client.chat.completions.create({ ...request, max_tokens: 1 });
});

test("models: list, get, and an unknown one", async () => {
  const client = clientOf(await serve(engine));
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual(["tiny"]);
  expect(await client.models.retrieve("tiny")).toMatchObject({ object: "model", context_length: 512 });
  await expect(client.models.retrieve("other")).rejects.toBeInstanceOf(OpenAI.NotFoundError);
});
