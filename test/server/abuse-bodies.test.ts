/** Bodies that are no questions, or too large: each is refused with a reason, and costs little. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { ask, expectAsBefore, expectError, maxBodyBytes, question, server } from "../helpers/abused-server.ts";
import { raw } from "../helpers/raw-socket.ts";

describe("a body", () => {
  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;

  test.each<[string, string | Uint8Array]>([
    ["that is empty", ""],
    ["of white space", " \n"],
    ["of null", "null"],
    ["of a number", "42"],
    ["of a text", '"hello"'],
    ["of a list", "[]"],
    ["of an empty object", "{}"],
    ["that is half", '{"messages": [{"role": "us'],
    ["with a comma too many", '{"messages": [],}'],
    ["of random bytes", Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256))],
    ["of zeros", new Uint8Array(10_000)],
    ["in UTF-16", Buffer.from(`\ufeff${JSON.stringify(question())}`, "utf16le")],
    ["of XML", "<?xml version='1.0'?><messages/>"],
    ["nested deeply", nested(500_000)],
    ["with messages nested deeply", `{"messages": ${nested(500_000)}}`],
    ["with content nested deeply", `{"messages": [{"role": "user", "content": ${nested(500_000)}}]}`],
    ["of objects nested deeply", `${'{"messages":'.repeat(50_000)}1${"}".repeat(50_000)}`],
    ["with a million messages", `{"messages": [${"1,".repeat(900_000)}1]}`],
    ["with its messages in a prototype", '{"__proto__": {"messages": [{"role": "user", "content": "hello"}]}}'],
    ["with a role that is a prototype", '{"messages": [{"role": "__proto__", "content": "hello"}]}'],
    ["without a role", '{"messages": [{"content": "hello"}]}'],
    ["with a role of a list", '{"messages": [{"role": ["user"], "content": "hello"}]}'],
  ])("%s is rejected", async (_, body) => {
    expectError(await ask(body), 400);
  });

  test("with unknown or excessive content is answered or rejected, without harm", async () => {
    const proto = `{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}, ${JSON.stringify(question()).slice(1)}`;
    expect((await ask(proto)).status).toBe(200);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    const deep = `{"metadata": ${nested(400_000)}, ${JSON.stringify(question()).slice(1)}`;
    expect([200, 400]).toContain((await ask(deep)).status);
    const keys = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`key${i}`, i]));
    expect((await ask({ ...keys, ...question() })).status).toBe(200);
  });

  test.each([
    ["max_tokens", "1e308"],
    ["max_tokens", "1e400"],
    ["max_tokens", "-1"],
    ["max_tokens", "0.5"],
    ["max_tokens", "9007199254740993"],
    ["n", "1000000"],
    ["seed", "1e400"],
    ["seed", "0.1"],
    ["temperature", "1e308"],
    ["temperature", "-1e-300"],
    ["top_p", "1.0000000001"],
    ["top_k", "-1"],
    ["top_k", "1e400"],
    ["repetition_penalty", "0"],
    ["num_beams", "4294967296"],
    ["stop", '["a","b","c","d","e"]'],
    ["stop", '""'],
    ["stream", '"yes"'],
  ])("with %s of %s is refused with its name", async (name, value) => {
    const answer = await ask(`{"${name}": ${value}, "messages": [{"role": "user", "content": "hello"}]}`);
    expectError(answer, 400);
    expect(answer.text).toContain(name);
  });

  test.each([
    ["temperature", "5e-324"],
    ["temperature", "-0"],
    ["top_p", "5e-324"],
    ["top_p", "0"],
    ["top_k", "9007199254740991"],
    ["seed", "-9007199254740991"],
    ["seed", "9007199254740991"],
    ["repetition_penalty", "0.1"],
    ["length_penalty", "-10"],
  ])("with %s of %s is answered", async (name, value) => {
    const more = `"${name}": ${value}, "num_beams": ${name === "length_penalty" ? 3 : 1}`;
    const answer = await ask(`{${more}, "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}`);
    expect(answer.status, answer.text).toBe(200);
  });

  test.each([
    "\ud800",
    "\udc00 and more",
    "a\ud800\ud800b",
    "\u0000",
    "\u202e\u2028\ufeff",
    "###Human: <Img><ImageHere></Img>",
    "</s><s>",
    "👩‍👩‍👧‍👦".repeat(3),
    "\\ud83d",
  ])("with the text %j is answered", async (text) => {
    const answer = await ask(question(text, { stop: text.slice(0, 10) }));
    // What is white space to JavaScript is an empty question.
    if (text.trim() === "") expectError(answer, 400);
    else expect(answer.status, answer.text).toBe(200);
  });

  test.each([
    ["a long text", "word ".repeat(50_000)],
    ["a long word", "x".repeat(200_000)],
    ["many signs", "🦙".repeat(100_000)],
    ["much white space", `${" ".repeat(500_000)}x${" ".repeat(500_000)}`],
  ])("with %s is answered or refused at once", async (_, text) => {
    const begin = performance.now();
    const answer = await ask(question(text));
    if (answer.status !== 200) expectError(answer, 400);
    expect(performance.now() - begin).toBeLessThan(15_000);
  });

  test.each([
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "image/png",
    "",
  ])("of type %j is refused", async (type) => {
    expectError(await ask(JSON.stringify(question()), { "content-type": type }), [400, 415]);
  });
});

describe("a body that is too large", () => {
  test("is rejected by its declared length before it is sent", async () => {
    const answer = await raw(
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000000000\r\n\r\n{",
      2000,
    );
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
    expect(answer).toContain("request_too_large");
  });

  test("is rejected while it arrives, without being read to its end", async () => {
    let sent = 0;
    const request: ClientRequest = httpRequest(`${server.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "transfer-encoding": "chunked" },
    });
    request.on("error", () => {});
    const answered = new Promise<IncomingMessage>((resolve) => request.on("response", resolve));
    const chunk = Buffer.alloc(65_536, "1,");
    const total = 500_000_000;
    const write = (): void => {
      while (sent < total && !request.destroyed) {
        sent += chunk.length;
        if (!request.write(chunk)) return void request.once("drain", write);
      }
    };
    write();
    const response = await answered;
    expect(response.statusCode).toBe(413);
    const atAnswer = sent;
    response.resume();
    await sleep(500);
    request.destroy();
    // What lies in the buffers of both sockets was sent, but not read.
    expect(atAnswer).toBeLessThan(maxBodyBytes + 20_000_000);
    expect(sent).toBeLessThan(maxBodyBytes + 60_000_000);
  });

  test("of exactly the maximum size is accepted", async () => {
    const body = JSON.stringify(question());
    expect((await ask(body.padEnd(maxBodyBytes, " "))).status).toBe(200);
    expectError(await ask(body.padEnd(maxBodyBytes + 1, " ")), 413);
  });
});

test("the server is unchanged afterwards", expectAsBefore);
