/** A server among clients that are careless, broken or hostile: it goes on answering the others, and loses nothing. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { Random } from "../../src/tensor/random.ts";
import { ask, expectAsBefore, expectWell, imageQuestion, metric, port, question } from "../helpers/abused-server.ts";
import { post, raw } from "../helpers/raw-socket.ts";

describe("a connection", () => {
  test("that closes at any moment does not affect others", async () => {
    const random = new Random(7);
    const png = await sharp({ create: { width: 30, height: 30, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    const bodies = [
      question(),
      question("Tell me.", { stream: true, max_tokens: 60 }),
      question("Twice.", { n: 3, max_tokens: 20 }),
      imageQuestion(png),
    ];
    const hangUp = async (body: unknown) => {
      const text = post(JSON.stringify(body));
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.on("data", () => {});
      // Some leave before they have asked, some while they wait, some in the midst of the answer.
      socket.write(random.uniform() < 0.3 ? text.slice(0, Math.floor(random.uniform() * text.length)) : text);
      await sleep(random.uniform() * 400);
      if (random.uniform() < 0.5) socket.resetAndDestroy();
      else socket.destroy();
    };
    const rude = Array.from({ length: 200 }, (_, i) => sleep(i * 5).then(() => hangUp(bodies[i % bodies.length])));
    const polite = await Promise.all(
      Array.from({ length: 40 }, (_, i) => sleep(i * 20).then(() => ask(question(`Number ${i}?`)))),
    );
    await Promise.all(rude);
    for (const answer of polite) {
      expect(answer.status, answer.text).toBe(200);
      expect(JSON.parse(answer.text).choices).toHaveLength(1);
    }
    await expect.poll(() => metric("questions_running"), { timeout: 10_000 }).toBe(0);
    expect(await metric("questions_waiting")).toBe(0);
  });

  test("that sends its header byte by byte does not block others", async () => {
    const slow: Socket[] = Array.from({ length: 100 }, () => connect(port, "127.0.0.1"));
    for (const socket of slow) {
      socket.on("error", () => {});
      socket.write("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
    }
    const drip = setInterval(() => slow.forEach((socket) => void (socket.writable && socket.write("a"))), 20);
    const half = connect(port, "127.0.0.1").on("error", () => {});
    half.write(post(JSON.stringify(question())).slice(0, -20));
    for (let i = 0; i < 5; i++) await expectWell();
    clearInterval(drip);
    for (const socket of [...slow, half]) socket.destroy();
  });

  test("can pipeline requests", async () => {
    const body = JSON.stringify(question());
    const bad = JSON.stringify({ messages: 1 });
    const close = "connection: close\r\n";
    const requests = Array.from({ length: 20 }, (_, i) => post(i % 3 === 1 ? bad : body, i === 19 ? close : ""));
    const answers = await raw(requests.join(""), 20_000);
    const statuses = [...answers.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status));
    expect(statuses).toEqual(requests.map((_, i) => (i % 3 === 1 ? 400 : 200)));
  });

  test.each([
    [
      "two lengths",
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
    ],
    [
      "a length and chunks",
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    [
      "a chunk of no length",
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ["a header too long", `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${"x".repeat(100_000)}\r\n\r\n`],
    ["too many headers", `GET /health HTTP/1.1\r\nhost: localhost\r\n${"x: y\r\n".repeat(20_000)}\r\n`],
    ["no host", "GET /health HTTP/1.1\r\n\r\n"],
    ["two hosts", "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n\r\n"],
    ["a host that is not the server's", "GET /health HTTP/1.1\r\nhost: evil.test\r\n\r\n"],
    ["a line feed in a header", "GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\nb: c\r\n\r\n"],
    ["another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    ["another version", "GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n"],
    ["nothing but letters", "hello hello hello\r\n\r\n"],
    ["an address that is none", "GET // HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"],
    ["an address with half a code", "GET /v1/models/%E0%A4%A HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"],
    ["a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n"],
    ["an upgrade", "GET /v1/models HTTP/1.1\r\nhost: evil.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"],
  ])("with %s is answered with an error, or closed", async (_, text) => {
    const answer = await raw(text, 1500);
    expect(answer === "" || /^HTTP\/1\.1 4\d\d /.test(answer), answer.slice(0, 300)).toBe(true);
    await expectWell();
  });
});

test("the server is unchanged afterwards", expectAsBefore);
