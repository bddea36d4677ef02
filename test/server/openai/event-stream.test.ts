import { createServer, get } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { afterEach, expect, test } from "vitest";
import { eventStream, eventText } from "../../../src/server/openai/event-stream.ts";
import { until } from "../../helpers/running-server.ts";

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const end of cleanup.splice(0)) end();
});

test("a client that stops reading pauses the source, then loses the connection", async () => {
  let made = 0;
  let ended = false;
  let reason: Error | undefined;
  async function* endless() {
    try {
      for (;;) {
        made++;
        yield eventText("x".repeat(1000));
      }
    } finally {
      ended = true;
    }
  }
  const listener = getRequestListener((_, env) => {
    const onAbandoned = (why: Error) => {
      reason ??= why;
      env.outgoing.destroy();
    };
    return new Response(eventStream(endless(), { writeTimeoutSeconds: 0.5, onAbandoned }));
  });
  const server = createServer(listener).listen(0, "127.0.0.1");
  cleanup.push(() => server.close());
  await until(() => server.listening);
  let closed = false;
  let resume = () => {};
  // The response is never read: what the system takes for the connection fills up, and no more is made.
  get(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, (response) => {
    response.pause();
    resume = () => response.resume();
    response.on("close", () => {
      closed = true;
    });
    response.on("error", () => {});
  }).on("error", () => {});
  await until(() => ended, 20_000);
  // Far below what an endless source would have filled the memory with by now.
  expect(made).toBeLessThan(50_000);
  expect(reason?.message).toBe("The client has not read the stream for 0.5 seconds.");
  // A client that reads on after that finds the connection cut, not an end.
  resume();
  await until(() => closed);
});

test("events arrive in order, one per read", async () => {
  const seen: string[] = [];
  async function* three() {
    for (const piece of ["a", "b", "c"]) {
      seen.push(piece);
      yield piece;
    }
  }
  const stream = eventStream(three(), { writeTimeoutSeconds: 10, onAbandoned: () => {} });
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  expect(seen).toEqual([]);
  expect([(await reader.read()).value, (await reader.read()).value]).toEqual(["a", "b"]);
  expect(await reader.read()).toEqual({ done: false, value: "c" });
  expect(await reader.read()).toEqual({ done: true, value: undefined });
});

test("comments keep the connection alive while there is no event", async () => {
  let send = () => {};
  const ready = new Promise<void>((resolve) => {
    send = resolve;
  });
  async function* slow() {
    await ready;
    yield eventText("late");
  }
  const stream = eventStream(slow(), { writeTimeoutSeconds: 10, heartbeatSeconds: 0.05, onAbandoned: () => {} });
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let i = 0; i < 2; i++) expect((await reader.read()).value).toBe(": still here\n\n");
  send();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) rest += read.value;
  expect(rest).toMatch(/^(: still here\n\n)*data: late\n\n$/);
});
