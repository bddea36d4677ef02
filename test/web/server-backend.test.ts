/** The server backend: against the real server, and against one that misbehaves. */
import { readFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { loadEngine } from "../../src/engine/load-engine.ts";
import type { LocalEngine } from "../../src/engine/local-engine.ts";
import { startServer } from "../../src/server/serve.ts";
import type { BackendError, ChatRequest, GenerationEvent } from "../../web/backend/backend.ts";
import { ServerBackend } from "../../web/backend/server-backend.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const cat = new Blob([readFileSync(new URL("../../examples/images/cat.jpg", import.meta.url))], {
  type: "image/jpeg",
});
const question: ChatRequest = {
  messages: [{ role: "user", text: "What is this?", images: [cat] }],
  options: { maxNewTokens: 8, temperature: 0 },
};
const never = new AbortController().signal;

let engine: LocalEngine;
let server: Awaited<ReturnType<typeof startServer>>;
const folder = temporaryFolder();
beforeAll(async () => {
  engine = await loadEngine(tinyModel(folder), "tiny");
  server = await startServer({ engine, host: "127.0.0.1", port: 0, apiKeys: ["secret"] });
});
afterAll(async () => {
  await server?.close(0);
  await engine?.close();
});

const real = (key: string | undefined = "secret") => new ServerBackend({ base: `${server.url}/`, key: () => key });

async function all(answer: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of answer) events.push(event);
  return events;
}

/** A backend of a server with a given response. */
async function misbehaving(listener: RequestListener): Promise<ServerBackend> {
  const http = createServer((request, response) => {
    if (request.url === "/v1/models") response.end('{"data": [{"id": "m"}]}');
    else request.resume().on("end", () => listener(request, response));
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    http.closeAllConnections();
    http.close();
  });
  return new ServerBackend({ base: `http://127.0.0.1:${(http.address() as AddressInfo).port}/` });
}

const problemOf = (answer: AsyncIterable<GenerationEvent>): Promise<BackendError> =>
  all(answer).then(
    () => expect.fail("It should have failed"),
    (problem) => problem,
  );

test("the model info is that of the real server", async () => {
  expect(await real().info()).toEqual({
    name: "tiny",
    contextLength: engine.model.contextLength,
    tokensPerImage: engine.model.tokensPerImage,
  });
});

test("the real server's answer is that of the engine", async () => {
  const events = await all(real().generate(question, never));
  const text = events.map((event) => (event.kind === "text" ? event.text : "")).join("");
  let expected = "";
  const bytes = new Uint8Array(await cat.arrayBuffer());
  const turns = [{ role: "user", text: "What is this?", images: 1 }] as const;
  for await (const event of engine.generate({ turns, images: [bytes], ...question.options })) {
    if (event.kind === "text") expected += event.text;
  }
  expect(text).toBe(expected);
  expect(events.at(-1)).toEqual({ kind: "end", reason: "length", tokens: 8 });
});

test("a wrong key is reported", async () => {
  await expect(real("wrong").info()).rejects.toMatchObject({ kind: "key" });
});

test("an invalid image is reported", async () => {
  const broken = {
    ...question,
    messages: [{ role: "user", text: "?", images: [new Blob(["no"], { type: "image/png" })] }],
  };
  const problem = await problemOf(real().generate(broken as ChatRequest, never));
  expect(problem).toMatchObject({ name: "BackendError", kind: "image" });
  expect(problem.message).not.toBe("");
});

test("an aborted request throws the reason of the signal", async () => {
  const stop = new AbortController();
  const long = { ...question, options: { maxNewTokens: 100, temperature: 0 } };
  const answer = real().generate(long, stop.signal)[Symbol.asyncIterator]();
  await answer.next();
  stop.abort(new Error("enough"));
  await expect(
    (async () => {
      while (!(await answer.next()).done);
    })(),
  ).rejects.toThrow("enough");
});

test.each([
  [429, { "retry-after": "7" }, "busy", 7],
  [503, {}, "loading", undefined],
  [500, {}, "failed", undefined],
  [502, {}, "away", undefined],
  [400, {}, "question", undefined],
] as const)("status %i", async (status, headers, kind, retryAfter) => {
  const backend = await misbehaving((_, response) =>
    response.writeHead(status, headers).end('{"error": {"message": "so"}}'),
  );
  const problem = await problemOf(backend.generate(question, never));
  expect(problem).toMatchObject({ kind, message: "so", retryAfter });
});

test("a connection error", async () => {
  const backend = new ServerBackend({ base: "http://127.0.0.1:9/" });
  await expect(backend.info()).rejects.toMatchObject({ kind: "away" });
});

test.each([
  ["ends", (data: string) => data],
  ["reports an error", (data: string) => `${data}data: {"error": {"message": "out of memory"}}\n\n`],
  ["sends invalid JSON", (data: string) => `${data}data: {nonsense\n\n`],
])("a stream that %s in the middle is broken, after its text", async (_, stream) => {
  const data = 'data: {"choices": [{"delta": {"content": "A ca"}}]}\n\n';
  const backend = await misbehaving((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" }).end(stream(data));
  });
  const received: GenerationEvent[] = [];
  const reading = (async () => {
    for await (const event of backend.generate(question, never)) received.push(event);
  })();
  await expect(reading).rejects.toMatchObject({ kind: "broken" });
  expect(received).toEqual([{ kind: "text", text: "A ca" }]);
});

test("a lost connection is broken, too", async () => {
  const backend = await misbehaving((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"choices": [{"delta": {"content": "A"}}]}\n\n', () => response.destroy());
  });
  expect(await problemOf(backend.generate(question, never))).toMatchObject({ kind: "broken" });
});
