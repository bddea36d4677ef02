import { connect } from "node:net";
import { pino } from "pino";
import { expect, test } from "vitest";
import type { Engine } from "../../src/engine/engine.ts";
import { EngineLostError, RequestError } from "../../src/errors.ts";
import { clientOf, metric, post, serve, shown, tinyEngine, until } from "../helpers/running-server.ts";

const engine = await tinyEngine();
const question = { max_tokens: 2, messages: [{ role: "user", content: "Hello" }] };

async function failure(answer: Response | Promise<Response>) {
  const response = await answer;
  const { error } = (await response.json()) as { error: Record<string, unknown> };
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  return { status: response.status, ...error, headers: response.headers };
}

test("unknown paths, methods, content types and invalid JSON give OpenAI errors", async () => {
  const { url } = await serve(engine);
  const chat = `${url}/v1/chat/completions`;
  expect(await failure(fetch(`${url}/v1/nothing`))).toMatchObject({ status: 404, code: "not_found" });
  const wrongMethod = await failure(fetch(chat));
  expect(wrongMethod).toMatchObject({ status: 405, code: "method_not_allowed" });
  expect(wrongMethod.headers.get("allow")).toBe("POST");
  expect(await failure(fetch(`${url}/v1/models`, { method: "DELETE" }))).toMatchObject({ status: 405 });
  expect(await failure(post(chat, '{"messages": ['))).toMatchObject({ status: 400, type: "invalid_request_error" });
  expect(await failure(post(chat, "[]"))).toMatchObject({ status: 400 });
  expect(await failure(post(chat, "null"))).toMatchObject({ status: 400 });
  expect(await failure(post(chat, question, { "content-type": "text/plain" }))).toMatchObject({ status: 415 });
  // What a form of another site can send without being asked.
  const form = new URLSearchParams({ messages: "[]" });
  expect(await failure(fetch(chat, { method: "POST", body: form }))).toMatchObject({ status: 415 });
  expect(await failure(fetch(chat, { method: "POST" }))).toMatchObject({ status: 400, type: "invalid_request_error" });
});

test("rejects a body that is too large, with and without a declared length", async () => {
  const { url } = await serve(engine, { maxBodyBytes: 2000 });
  const large = { ...question, user: "x".repeat(3000) };
  expect(await failure(post(`${url}/v1/chat/completions`, large))).toMatchObject({
    status: 413,
    code: "request_too_large",
  });
  const chunked = (body: object) =>
    fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: new Blob([JSON.stringify(body)]).stream(),
      duplex: "half",
    } as RequestInit);
  expect(await failure(chunked(large))).toMatchObject({ status: 413 });
  expect((await chunked(question)).status).toBe(200);
});

test("rejects too many and too large images", async () => {
  const server = await serve(engine, { maxImages: 1, maxPixels: 1000 });
  const chat = `${server.url}/v1/chat/completions`;
  const [cat, coffee] = [shown("cat.jpg"), shown("coffee.jpg")];
  const content = [...cat, ...coffee];
  expect(await failure(post(chat, { messages: [{ role: "user", content }] }))).toMatchObject({
    status: 400,
    code: "too_many_images",
  });
  expect(await failure(post(chat, { messages: [{ role: "user", content: cat }] }))).toMatchObject({
    status: 400,
    code: "image_too_large",
  });
});

test("rejects other host names and origins unless they are allowed", async () => {
  const { url } = await serve(engine);
  const raw = (host: string) =>
    new Promise<string>((resolve) => {
      const { port, hostname } = new URL(url);
      const socket = connect(Number(port), hostname);
      socket.end(`GET /v1/models HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
      let text = "";
      socket.on("data", (data) => {
        text += data;
      });
      socket.on("close", () => resolve(text));
    });
  expect(await raw("evil.example")).toMatch(/^HTTP\/1.1 403 .*host_not_allowed/s);
  expect(await raw("a b")).toMatch(/^HTTP\/1.1 400 .*invalid_request_error/s);
  expect(await raw("localhost")).toMatch(/^HTTP\/1.1 200 /);
  const origin = "https://page.example";
  expect(await failure(fetch(`${url}/v1/models`, { headers: { origin } }))).toMatchObject({ status: 403 });
  const open = await serve(engine, { corsOrigins: [origin], apiKeys: ["0123456789abcdef"] });
  const preflight = await fetch(`${open.url}/v1/chat/completions`, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type" },
  });
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("access-control-allow-origin")).toBe(origin);
  const refused = await post(`${open.url}/v1/chat/completions`, question, { origin });
  expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, origin]);
});

test("API keys are required, except for /health", async () => {
  const server = await serve(engine, { apiKeys: ["0123456789abcdef", "fedcba9876543210"] });
  expect(await failure(fetch(`${server.url}/v1/models`))).toMatchObject({ status: 401, code: "invalid_api_key" });
  expect((await fetch(`${server.url}/metrics`)).status).toBe(401);
  expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: "ok", model: "tiny" });
  const models = await clientOf(server, { apiKey: "fedcba9876543210" }).models.list();
  expect(models.data).toHaveLength(1);
});

/** The tiny model, with a failure in the place of its answers. */
function failing(error: Error, after = 0): Engine {
  return {
    model: engine.model,
    async *generate() {
      if (after > 0) yield { kind: "begin", promptTokens: 3, cachedTokens: 1 };
      for (let i = 0; i < after; i++) yield { kind: "text", choice: 0, text: "word " };
      throw error;
    },
    embed: () => Promise.reject(error),
    close: async () => {},
  };
}

test("engine errors: client errors, retryable errors, and internal errors without details", async () => {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => lines.push(line) });
  const ask = async (error: Error) => {
    const { url } = await serve(failing(error), { log });
    return failure(post(`${url}/v1/chat/completions`, { ...question, stream: true }));
  };
  expect(await ask(new RequestError("context_length_exceeded", "Too long"))).toMatchObject({
    status: 400,
    code: "context_length_exceeded",
    message: "Too long",
  });
  const lost = await ask(new EngineLostError("The process was killed"));
  expect(lost).toMatchObject({ status: 503, code: "engine_lost" });
  expect(Number(lost.headers.get("retry-after"))).toBeGreaterThan(0);
  const unexpected = await ask(new TypeError("secret of /home/somebody"));
  expect(unexpected).toMatchObject({ status: 500, type: "server_error" });
  expect(JSON.stringify(unexpected)).not.toContain("secret");
  expect(lines.join("")).toContain("secret of /home/somebody");
  expect(lines.join("")).toContain("The process was killed");
  expect(lines.join("")).not.toContain("Too long");
});

test("an error in a stream is its last event, and metrics stay correct", async () => {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => lines.push(line) });
  const server = await serve(failing(new EngineLostError("The process was killed"), 2), { log });
  const text = await (await post(`${server.url}/v1/chat/completions`, { ...question, stream: true })).text();
  const events = text.split("\n\n").filter((event) => event !== "");
  expect(JSON.parse(events.at(-1)?.slice("data: ".length) ?? "")).toMatchObject({ error: { code: "engine_lost" } });
  expect(text).toContain('"content":"word"');
  expect(text).not.toContain("[DONE]");
  expect(lines.join("")).toContain("The process was killed");
  const read = async () => {
    const stream = await clientOf(server).chat.completions.create({
      model: "tiny",
      stream: true,
      messages: [{ role: "user", content: "Hello" }],
    });
    for await (const _ of stream);
  };
  await expect(read()).rejects.toMatchObject({ code: "engine_lost" });
  await until(async () => (await metric(server, "questions_running")) === 0);
  expect(await metric(server, "prompt_tokens_total")).toBe(6);
  expect(await metric(server, 'answers_total{reason="error"}')).toBe(2);
});

test("logs one line per request, without its texts", async () => {
  const lines: string[] = [];
  const { url } = await serve(engine, { log: pino({}, { write: (line: string) => lines.push(line) }) });
  await (await post(`${url}/v1/chat/completions`, question, { authorization: "Bearer hidden-key" })).json();
  await until(() => lines.length > 0);
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({ method: "POST", path: "/v1/chat/completions", status: 200 });
  expect(lines.join("")).not.toMatch(/Hello|hidden-key/);
});
