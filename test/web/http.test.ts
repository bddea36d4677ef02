/** Requests to the server: address, API key, errors, server-sent events. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { beforeEach, expect, test } from "vitest";
import { HttpError, readEvents, request } from "../../web/backend/http.ts";
import { listening } from "../helpers/loopback.ts";

let answer: (response: ServerResponse) => void;
let received: IncomingMessage;
const port = await listening((request, response) => {
  received = request;
  answer(response);
});
beforeEach(() => {
  answer = (response) => response.end("{}");
});

const base = `http://127.0.0.1:${port}/below/`;
const ask = (init?: RequestInit, key?: string) => request("api/runs?stage=a", init, { base, key: () => key });
const expectError = async (init?: RequestInit) => {
  const error = await ask(init).catch((error) => error);
  expect(error).toBeInstanceOf(HttpError);
  return error as HttpError;
};

test("requests go to the folder of the page, with the API key if there is one, and the caller's headers", async () => {
  await ask({ headers: { accept: "text/event-stream" } }, "open-sesame");
  expect(received.url).toBe("/below/api/runs?stage=a");
  expect(received.headers).toMatchObject({ authorization: "Bearer open-sesame", accept: "text/event-stream" });
  await ask();
  expect(received.headers).not.toHaveProperty("authorization");
});

test("an error has the server's message, or else its status", async () => {
  const body = { error: { message: "Somebody was quicker" }, current: { id: 3 } };
  answer = (response) => response.writeHead(409).end(JSON.stringify(body));
  expect(await expectError()).toMatchObject({ status: 409, message: "Somebody was quicker", body });
  for (const text of ["<h1>no</h1>", "", "null", '{"error": "so"}', '{"error": {"message": 3}}']) {
    answer = (response) => response.writeHead(502).end(text);
    expect(await expectError()).toMatchObject({ status: 502, message: "The server responded 502 Bad Gateway" });
  }
});

test.each([
  ["7", 7],
  ["-3", 0],
  ["soon", undefined],
  ["", undefined],
  ["Thu, 01 Jan 1970 00:00:00 GMT", 0],
])("retry-after: %j", async (header, seconds) => {
  answer = (response) => response.writeHead(429, { "retry-after": header }).end();
  expect((await expectError()).retryAfter).toBe(seconds);
});

test("retry-after with a date", async () => {
  const header = new Date(Date.now() + 60_000).toUTCString();
  answer = (response) => response.writeHead(503, { "retry-after": header }).end();
  expect((await expectError()).retryAfter).toBeGreaterThan(30);
});

test("a connection error has no status; an aborted request throws its reason", async () => {
  answer = (response) => response.destroy();
  expect((await expectError()).status).toBeUndefined();
  await expect(ask({ signal: AbortSignal.abort(new Error("gone")) })).rejects.toThrow("gone");
});

test("events are parsed however the bytes are split", async () => {
  const bytes = Buffer.from('event: metrics\ndata: {"loss": 1}\n\n: still here\n\ndata: Fuß\r\n\r\ndata: torn');
  answer = async (response) => {
    for (const byte of bytes) await new Promise((done) => response.write(Uint8Array.of(byte), done));
    response.end();
  };
  const events: (string | undefined)[][] = [];
  for await (const { event, data } of readEvents(await ask())) events.push([event, data]);
  expect(events).toEqual([
    ["metrics", '{"loss": 1}'],
    [undefined, "Fuß"],
  ]);
  expect((await readEvents(new Response(null)).next()).done).toBe(true);
});

test("leaving the loop closes the connection", async () => {
  let closed = false;
  answer = (response) => {
    response.on("close", () => {
      closed = true;
    });
    response.write("data: 1\n\n");
  };
  for await (const { data } of readEvents(await ask())) {
    expect(data).toBe("1");
    break;
  }
  await expect.poll(() => closed).toBe(true);
});
