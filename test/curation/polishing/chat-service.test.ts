import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { PolishError, requestStep } from "../../../src/curation/polishing/plan.ts";
import { polish } from "../../../src/curation/polishing/polish.ts";
import { type Asked, ChatServer, polished, type Reply, said } from "../../helpers/chat-server.ts";
import { currentTexts, project, run, textOf } from "../../helpers/described-project.ts";

describe("retries transient failures", () => {
  const good = ({ text }: Asked) => said(polished(text));
  const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toUTCString();
  const failures: readonly (readonly [string, () => Reply])[] = [
    ["too many requests", () => ({ status: 429, body: { error: { message: "slow down" } } })],
    ["too many requests, wait seconds", () => ({ status: 429, headers: { "retry-after": "0.01" } })],
    ["too many requests, wait until", () => ({ status: 429, headers: { "retry-after": inSeconds(-5) } })],
    ["too many requests, wait milliseconds", () => ({ status: 429, headers: { "retry-after-ms": "3" } })],
    ["a wait that is none", () => ({ status: 429, headers: { "retry-after": "soon", "retry-after-ms": "NaN" } })],
    ["time-out of the service", () => ({ status: 408 })],
    ["a conflict", () => ({ status: 409 })],
    ["a failure", () => ({ status: 500, body: { error: { message: "oops" } } })],
    ["a failure with a page", () => ({ status: 502, body: "<html>Bad gateway</html>" })],
    ["too busy", () => ({ status: 503 })],
    ["a cut connection", () => ({ cut: "at once" })],
    ["an answer cut in the middle", () => ({ ...said("half"), cut: "halfway" })],
    ["no answer", () => ({ after: 400 })],
    ["an answer that stops in the middle", () => ({ ...said("half"), halfway: 400 })],
    ["a page instead of JSON", () => ({ body: "<html>Welcome</html>" })],
    ["text instead of JSON", () => ({ body: "pong" })],
    ["broken JSON", () => ({ body: '{"choices": [', headers: { "content-type": "application/json" } })],
    ["other JSON", () => ({ body: [1, null, { choices: 3 }] })],
    ["nothing", () => ({ body: "", headers: { "content-type": "application/json" } })],
    ["an error with the status of success", () => ({ body: { error: { message: "overloaded", code: 529 } } })],
    ["content that is no text", () => ({ body: { choices: [{ message: { content: { a: 1 } } }] } })],
  ];

  test.each(failures)("%s", async (_, failure) => {
    const { store } = project(2);
    const server = await ChatServer.start((asked) => (asked.times <= 2 ? failure() : good(asked)));
    const report = await run(store, server, { timeout: 200 });
    expect(report).toMatchObject({ polished: 2, failed: 0 });
    expect(currentTexts(store)).toEqual([polished(textOf(0)), polished(textOf(1))]);
    expect(store.failures(requestStep).size).toBe(0);
  });

  test("up to a limit; then the reason is recorded, and the next run retries the text", async () => {
    const { store } = project(3);
    let broken = true;
    const server = await ChatServer.start((asked) =>
      broken && asked.text === textOf(1) ? { status: 500, body: { error: { message: "oops" } } } : good(asked),
    );
    expect(await run(store, server, { retries: 2 })).toMatchObject({ polished: 2, failed: 1, requests: 5 });
    expect(store.failures(requestStep).get(2)).toMatchObject({
      message: expect.stringContaining("failed (500: oops)"),
    });
    broken = false;
    expect(await run(store, server)).toMatchObject({ texts: 1, polished: 1 });
  });

  test("a retry-after header pauses all requests", async () => {
    const { store } = project(12);
    const times: number[] = [];
    const server = await ChatServer.start(async (asked) => {
      times.push(performance.now());
      if (asked.before === 4) return { status: 429, headers: { "retry-after": "0.4" } };
      return { ...good(asked), after: 20 };
    });
    const pauses: number[] = [];
    await run(store, server, { parallel: 3, onPause: (ms) => pauses.push(ms) });
    expect(currentTexts(store)).toEqual(Array.from({ length: 12 }, (_, i) => polished(textOf(i))));
    expect(pauses).toEqual([400]);
    const told = times[4] ?? 0;
    // Those that were on their way go on; nothing new comes for the time asked.
    expect(times.filter((time) => time > told + 30 && time < told + 399)).toEqual([]);
    expect(times.at(-1)).toBeGreaterThan(told + 399);
  });

  test("waits for an exhausted rate limit to reset", async () => {
    const { store } = project(3);
    const times: number[] = [];
    const server = await ChatServer.start((asked) => {
      times.push(performance.now());
      const headers = {
        "x-ratelimit-remaining-requests": `${asked.before === 0 ? 0 : 5}`,
        "x-ratelimit-reset-requests": "0m0.3s",
      };
      return { ...good(asked), headers };
    });
    await run(store, server, { parallel: 1 });
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(290);
    expect((times[2] ?? 0) - (times[1] ?? 0)).toBeLessThan(250);
  });

  test("a rate limit does not count as a failure while other requests succeed", async () => {
    const { store } = project(20);
    let free = performance.now();
    // One request in ten milliseconds.
    const server = await ChatServer.start((asked) => {
      if (performance.now() < free) return { status: 429, headers: { "retry-after-ms": "10" } };
      free = performance.now() + 10;
      return good(asked);
    });
    expect(await run(store, server, { parallel: 8, retries: 3 })).toMatchObject({ polished: 20, failed: 0 });
    expect(server.most).toBeLessThanOrEqual(8);
  });
});

describe("final failures end the run immediately", () => {
  const failing = (status: number, message: string, code?: string): Reply => ({
    status,
    body: { error: { message, code } },
  });
  test.each([
    [401, failing(401, "bad key"), "rejected the API key in MY_KEY (401: bad key)"],
    [403, failing(403, "not in your country"), "rejected the API key in MY_KEY (403: not in your country)"],
    [402, failing(402, "no credit"), "requires payment (402: no credit)"],
    [404, failing(404, "no model test"), "has no such model or no chat completions (404: no model test)"],
    ["a used up quota", failing(429, "pay first", "insufficient_quota"), "requires payment (429: pay first)"],
    ["a day", { status: 429, headers: { "retry-after": "86400" } }, "Its rate limit resets in 1440 minutes"],
    [
      "errors as success",
      { body: { error: { message: "who?", code: 401 } } },
      "rejected the API key in MY_KEY (401: who?)",
    ],
  ])("%s", async (_, reply, message) => {
    const { store } = project(50);
    const server = await ChatServer.start(() => reply);
    const result = run(store, server, { apiKey: "sk-1234567890", apiKeyName: "MY_KEY" });
    await expect(result).rejects.toThrow(PolishError);
    await expect(result).rejects.toThrow(message);
    expect(server.asked.length).toBeLessThanOrEqual(4);
    expect(store.entries().every(({ versions }) => versions === 1)).toBe(true);
  });

  test("400 for every text; a single rejected text does not affect others", async () => {
    const { store } = project(50);
    let refused = (_: string) => true;
    const server = await ChatServer.start(({ text }) =>
      refused(text) ? { status: 400, body: { error: { message: "too long" } } } : said(polished(text)),
    );
    await expect(run(store, server)).rejects.toThrow(
      "rejected the request (400: too long). The same happened for 5 texts in a row",
    );
    expect(server.asked.length).toBeLessThan(10);
    // Those that were refused come last now.
    refused = (text) => text === textOf(0);
    expect(await run(store, server)).toMatchObject({ texts: 50, polished: 49, failed: 1 });
    expect(server.asked.at(-1)?.text).not.toBe(textOf(1));
  });

  test("no server", async () => {
    const { store } = project(5);
    const address = new URL((await ChatServer.start()).url);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, address.hostname, resolve));
    address.port = `${(server.address() as AddressInfo).port}`;
    await new Promise((resolve) => server.close(resolve));
    const problem = /cannot be reached \(ECONNREFUSED\); is the server running\?/;
    await expect(polish(store, { baseUrl: address.href, model: "m" })).rejects.toThrow(problem);
    await expect(polish(store, { baseUrl: address.href })).rejects.toThrow(problem);
  });

  test("a service that fails in the middle keeps the saved texts", async () => {
    const { store } = project(30);
    const server = await ChatServer.start(({ text, before }) => (before < 10 ? said(polished(text)) : { status: 500 }));
    const result = run(store, server, { retries: 1 });
    await expect(result).rejects.toThrow("for 5 texts in a row");
    const report = await result.catch((error) => error.report);
    expect(report).toMatchObject({ polished: 10, stopped: "service" });
    expect(server.asked.length).toBeLessThan(30);
  });

  test("the key appears in no error and no text", async () => {
    const apiKey = "sk-secret-1234567890";
    const { store } = project(1);
    const echo = await ChatServer.start(({ headers }) => said(`You sent ${headers.authorization}`));
    await run(store, echo, { apiKey, retries: 0 }).catch(() => {});
    expect(echo.asked[0]?.headers.authorization).toBe(`Bearer ${apiKey}`);
    const angry = await ChatServer.start(() => failing(401, `Incorrect key ${apiKey} provided`));
    const error = await run(store, angry, { apiKey }).catch((one) => one);
    expect(error.message).toContain("Incorrect key *** provided");
    expect(JSON.stringify([store.entries(), [...store.failures(requestStep)], error, error.stack])).not.toContain(
      "secret",
    );
    await expect(run(store, angry, { apiKey: `${apiKey}\n${apiKey}` })).rejects.toThrow(
      /^The key in OPENAI_API_KEY contains invalid char/,
    );
    const open = await ChatServer.start(() => failing(401, "key?"));
    await expect(run(store, open)).rejects.toThrow(
      "requires an API key (401: key?); set the environment variable OPENAI_API_KEY",
    );
    expect(open.asked[0]?.headers.authorization).toBeUndefined();
  });

  test.each(["", "ftp://a.b", "http://me:pass@a.b/v1", "http://a.b/v1?key=1", "nonsense"])(
    "base URL %j",
    async (baseUrl) => {
      await expect(polish(project(1).store, { baseUrl, model: "m" })).rejects.toThrow("The base URL must");
    },
  );
});
