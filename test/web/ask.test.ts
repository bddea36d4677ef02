/** How the page asks its server, whatever it asks for: the address, the key, refusals, and events as they come. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { beforeEach, expect, test } from "vitest";
import { AskError, askServer } from "../../web/backend/ask.ts";
import { eventsOf } from "../../web/backend/events.ts";
import { listening } from "../helpers/loopback.ts";

let answer: (response: ServerResponse) => void;
let asked: IncomingMessage;
const port = await listening((request, response) => {
  asked = request;
  answer(response);
});
beforeEach(() => {
  answer = (response) => response.end("{}");
});

const base = `http://127.0.0.1:${port}/below/`;
const ask = (init?: RequestInit, key?: string) => askServer("api/runs?stage=a", init, { base, key: () => key });
const refusal = async (init?: RequestInit) => {
  const error = await ask(init).catch((error) => error);
  expect(error).toBeInstanceOf(AskError);
  return error as AskError;
};

test("the page's folder is asked, with the key if there is one, and with the caller's headers", async () => {
  await ask({ headers: { accept: "text/event-stream" } }, "open-sesame");
  expect(asked.url).toBe("/below/api/runs?stage=a");
  expect(asked.headers).toMatchObject({ authorization: "Bearer open-sesame", accept: "text/event-stream" });
  await ask();
  expect(asked.headers).not.toHaveProperty("authorization");
});

test("a refusal has the server's words, or its status where it has none", async () => {
  const body = { error: { message: "Somebody was quicker" }, current: { id: 3 } };
  answer = (response) => response.writeHead(409).end(JSON.stringify(body));
  expect(await refusal()).toMatchObject({ status: 409, message: "Somebody was quicker", body });
  for (const text of ["<h1>no</h1>", "", "null", '{"error": "so"}', '{"error": {"message": 3}}']) {
    answer = (response) => response.writeHead(502).end(text);
    expect(await refusal()).toMatchObject({ status: 502, message: "The server answered 502 Bad Gateway" });
  }
});

test.each([
  ["7", 7],
  ["-3", 0],
  ["soon", undefined],
  ["", undefined],
  ["Thu, 01 Jan 1970 00:00:00 GMT", 0],
])("to come back after %j", async (header, seconds) => {
  answer = (response) => response.writeHead(429, { "retry-after": header }).end();
  expect((await refusal()).retryAfter).toBe(seconds);
});

test("to come back at a time", async () => {
  const header = new Date(Date.now() + 60_000).toUTCString();
  answer = (response) => response.writeHead(503, { "retry-after": header }).end();
  expect((await refusal()).retryAfter).toBeGreaterThan(30);
});

test("nobody who answers is told from who gave up", async () => {
  answer = (response) => response.destroy();
  expect((await refusal()).status).toBeUndefined();
  await expect(ask({ signal: AbortSignal.abort(new Error("gone")) })).rejects.toThrow("gone");
});

test("events come whole, however the bytes are cut", async () => {
  const bytes = Buffer.from('event: metrics\ndata: {"loss": 1}\n\n: still here\n\ndata: Fuß\r\n\r\ndata: torn');
  answer = async (response) => {
    for (const byte of bytes) await new Promise((done) => response.write(Uint8Array.of(byte), done));
    response.end();
  };
  const events: (string | undefined)[][] = [];
  for await (const { event, data } of eventsOf(await ask())) events.push([event, data]);
  expect(events).toEqual([
    ["metrics", '{"loss": 1}'],
    [undefined, "Fuß"],
  ]);
  expect((await eventsOf(new Response(null)).next()).done).toBe(true);
});

test("who leaves the events ends the connection", async () => {
  let closed = false;
  answer = (response) => {
    response.on("close", () => {
      closed = true;
    });
    response.write("data: 1\n\n");
  };
  for await (const { data } of eventsOf(await ask())) {
    expect(data).toBe("1");
    break;
  }
  await expect.poll(() => closed).toBe(true);
});
