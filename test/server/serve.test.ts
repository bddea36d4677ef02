import { mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type OpenAI from "openai";
import { expect, test } from "vitest";
import { startServer } from "../../src/server/serve.ts";
import { clientOf, serve, tinyEngine, until, WatchedEngine } from "../helpers/running-server.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const engine = await tinyEngine();
const request = { model: "tiny", max_tokens: 30, messages: [{ role: "user" as const, content: "Tell a story" }] };

async function readAll(stream: AsyncIterable<OpenAI.ChatCompletionChunk>): Promise<string | null | undefined> {
  let reason: string | null | undefined;
  for await (const { choices } of stream) reason = choices[0]?.finish_reason ?? reason;
  return reason;
}

test("close() lets running requests finish and accepts no new connections", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched);
  const client = clientOf(server);
  watched.shut();
  const reading = client.chat.completions.create({ ...request, stream: true }).then(readAll);
  await until(() => watched.running === 1);
  const closing = server.close(10_000);
  await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  watched.open();
  expect(await reading).toBe("length");
  const began = performance.now();
  await closing;
  // Kept connections without a request do not hold it up.
  expect(performance.now() - began).toBeLessThan(2000);
});

test("a new request on an open connection gets 503 during the shutdown", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched);
  const { port, hostname } = new URL(server.url);
  watched.shut();
  const reading = clientOf(server)
    .chat.completions.create({ ...request, stream: true })
    .then(readAll);
  await until(() => watched.running === 1);
  const socket = connect(Number(port), hostname);
  let received = "";
  socket.setEncoding("utf8").on("data", (text) => {
    received += text;
  });
  // The first half of a request: the connection is not idle, and stays.
  socket.write("GET /health HTTP/1.1\r\nhost: localhost\r\n");
  await new Promise((resolve) => setTimeout(resolve, 100));
  const closing = server.close(10_000);
  socket.write("\r\n");
  await until(() => received.includes("server_stopping"));
  expect(received).toMatch(/^HTTP\/1.1 503/);
  expect(received.toLowerCase()).toContain("connection: close");
  watched.open();
  await reading;
  await closing;
});

test("a generation that exceeds the grace period ends with an error, not as if it were complete", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched);
  const client = clientOf(server);
  watched.shut();
  const stream = await client.chat.completions.create({ ...request, stream: true });
  const reading = readAll(stream).catch((error: unknown) => error);
  const whole = [1, 2].map(() => client.chat.completions.create(request).catch((error: unknown) => error));
  await until(() => watched.running === 3);
  await server.close(100);
  expect(await reading).toMatchObject({ code: "server_stopping" });
  for (const told of await Promise.all(whole)) expect(told).toMatchObject({ status: 503, code: "server_stopping" });
  expect(watched.running).toBe(0);
});

test("a port in use and an unknown address are reported", async () => {
  const { url } = await serve(engine);
  const port = Number(new URL(url).port);
  await expect(startServer({ engine, port })).rejects.toThrow(
    `Port ${port} of 127.0.0.1 is in use by another program. Choose another with --port.`,
  );
  await expect(startServer({ engine, port: 0, host: "192.0.2.1" })).rejects.toThrow(
    "This machine has no address 192.0.2.1",
  );
});

test("a client that follows a training run does not delay the shutdown", async () => {
  const runs = temporaryFolder();
  mkdirSync(join(runs, "mine"));
  writeFileSync(join(runs, "mine", "metrics.jsonl"), '{"kind":"train","step":1,"time":1,"loss":2.5}\n');
  const server = await serve(engine, { runsFolder: runs });
  expect(await (await fetch(`${server.url}/api/runs`)).json()).toMatchObject({ runs: [{ name: "mine", lastStep: 1 }] });
  const watching = await fetch(`${server.url}/api/runs/mine/metrics`, { headers: { accept: "text/event-stream" } });
  const reader = watching.body?.pipeThrough(new TextDecoderStream()).getReader();
  expect((await reader?.read())?.value).toContain("2.5");
  const began = performance.now();
  await server.close(10_000);
  expect(performance.now() - began).toBeLessThan(2000);
});
