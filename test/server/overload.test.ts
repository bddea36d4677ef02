import OpenAI from "openai";
import { expect, test } from "vitest";
import { clientOf, metric, serve, tinyEngine, until, WatchedEngine } from "../helpers/running-server.ts";

const engine = await tinyEngine();
const request = { model: "tiny", max_tokens: 3, messages: [{ role: "user" as const, content: "Hello" }] };

test("limits running and waiting requests; a client that retries after retry-after succeeds", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched, { maxConcurrent: 2, maxQueue: 1 });
  const client = clientOf(server);
  watched.shut();
  const answered = [1, 2].map(() => client.chat.completions.create(request));
  await until(() => watched.running === 2);
  answered.push(client.chat.completions.create(request));
  await until(async () => (await metric(server, "questions_waiting")) === 1);
  const error = await client.chat.completions.create(request).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(OpenAI.RateLimitError);
  expect(error).toMatchObject({ status: 429, code: "rate_limit_exceeded", type: "rate_limit_error" });
  expect(
    Number((error as InstanceType<typeof OpenAI.RateLimitError>).headers?.get("retry-after")),
  ).toBeGreaterThanOrEqual(1);
  const patient = clientOf(server, { maxRetries: 2 }).chat.completions.create(request);
  await new Promise((resolve) => setTimeout(resolve, 200));
  watched.open();
  const all = await Promise.all([...answered, patient]);
  expect(all.every(({ choices }) => choices.length === 1)).toBe(true);
  expect(watched.most).toBe(2);
});

test("a client that disconnects in the queue never reaches the engine", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched, { maxConcurrent: 1, maxQueue: 5 });
  const client = clientOf(server);
  watched.shut();
  const first = client.chat.completions.create(request);
  await until(() => watched.running === 1);
  const controller = new AbortController();
  const gone = client.chat.completions.create(request, { signal: controller.signal }).catch(() => "gone");
  await until(async () => (await metric(server, "questions_waiting")) === 1);
  controller.abort();
  expect(await gone).toBe("gone");
  await until(async () => (await metric(server, "questions_waiting")) === 0);
  watched.open();
  await first;
  expect(watched.questions).toHaveLength(1);
});

test("a timeout gives 504, or an error event in a stream, and is not retried", async () => {
  const watched = new WatchedEngine(engine);
  const client = clientOf(await serve(watched, { timeoutSeconds: 0.2 }), { maxRetries: 2 });
  watched.shut();
  const error = await client.chat.completions.create(request).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ status: 504, code: "timeout" });
  expect(watched.questions).toHaveLength(1);
  const stream = await client.chat.completions.create({ ...request, stream: true });
  const read = async () => {
    for await (const _ of stream);
  };
  await expect(read()).rejects.toMatchObject({ code: "timeout" });
  await until(() => watched.running === 0);
});
