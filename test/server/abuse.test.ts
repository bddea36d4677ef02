/** A server among clients that are careless, broken or hostile: it goes on answering the others, and loses nothing. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { crc32, deflateSync } from "node:zlib";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadEngine } from "../../src/chat/engine/load-engine.ts";
import { type RunningServer, startServer } from "../../src/server/serve.ts";
import { Random } from "../../src/tensor/random.ts";
import { temporaryFolder, tinyModel } from "../cli/tiny-model.ts";

const maxBodyBytes = 2_000_000;
let engine: Awaited<ReturnType<typeof loadEngine>>;
let server: RunningServer;
let port: number;
let memoryBefore: number;

beforeAll(async () => {
  engine = await loadEngine(tinyModel(temporaryFolder()), "tiny");
  server = await startServer({ engine, port: 0, maxBodyBytes, maxConcurrent: 4, maxQueue: 500 });
  port = Number(new URL(server.url).port);
  for (let i = 0; i < 20; i++) await ask(question());
  memoryBefore = usedMemory();
});

afterAll(async () => {
  await server.close(1000);
  await engine.release();
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** A body as it is sent: what is no text or bytes is written as JSON. */
async function ask(body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body:
      typeof body === "string" || body instanceof Uint8Array ? new Uint8Array(Buffer.from(body)) : JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

function question(content: unknown = "What is this?", more: Record<string, unknown> = {}) {
  return { messages: [{ role: "user", content }], max_tokens: 3, temperature: 0, ...more };
}

function pictureQuestion(...pictures: (Uint8Array | string)[]) {
  return question(
    pictures.map((picture) => {
      const url =
        typeof picture === "string" ? picture : `data:image/png;base64,${Buffer.from(picture).toString("base64")}`;
      return { type: "image_url", image_url: { url } };
    }),
  );
}

function expectError({ status, text }: Answer, expected: number | readonly number[]): void {
  expect([expected].flat(), text).toContain(status);
  expect(JSON.parse(text)).toEqual({
    error: {
      message: expect.stringMatching(/\S/),
      type: expect.any(String),
      param: text.includes('"param":null') ? null : expect.any(String),
      code: text.includes('"code":null') ? null : expect.any(String),
    },
  });
  // Nothing of the machine: no folders, no lines of code.
  expect(text).not.toMatch(/node_modules|\/src\/|\.ts:|\bat .*:\d+/);
}

async function expectWell(): Promise<void> {
  const answer = await ask(question());
  expect(answer.status, answer.text).toBe(200);
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`minigpt4_${name}`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Bytes in use after what can be freed was freed. */
function usedMemory(): number {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Sends bytes as they are; what comes back until the connection ends, or for a while. */
function raw(text: string | Uint8Array, milliseconds = 3000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let received = "";
    const end = () => {
      socket.destroy();
      resolve(received);
    };
    const timer = setTimeout(end, milliseconds);
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      end();
    });
    socket.write(text);
  });
}

function post(body: string, headers = ""): string {
  const length = Buffer.byteLength(body);
  return `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n${headers}\r\n${body}`;
}

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
  ])("%s is refused", async (_, body) => {
    expectError(await ask(body), 400);
  });

  test("with much that nobody asked for is answered, or refused, but harms nothing", async () => {
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
    expect(performance.now() - begin).toBeLessThan(5000);
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
  test("is refused by its declared length, before any of it comes", async () => {
    const answer = await raw(
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000000000\r\n\r\n{",
      2000,
    );
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
    expect(answer).toContain("request_too_large");
  });

  test("is refused as it comes, without all of it being read", async () => {
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

  test("that ends at the limit is read", async () => {
    const body = JSON.stringify(question());
    expect((await ask(body.padEnd(maxBodyBytes, " "))).status).toBe(200);
    expectError(await ask(body.padEnd(maxBodyBytes + 1, " ")), 413);
  });
});

describe("a picture", () => {
  test("of 50000 x 50000 pixels in a few kilobytes is refused by its header", async () => {
    const bomb = emptyPng(50_000, 50_000);
    const begin = performance.now();
    const answer = await ask(pictureQuestion(bomb));
    expectError(answer, 400);
    expect(answer.text).toContain("image_too_large");
    expect(performance.now() - begin).toBeLessThan(1000);
  });

  test("whose header says more than its pixels, less, or nothing, is refused", async () => {
    for (const bytes of [
      emptyPng(4000, 4000, 10),
      emptyPng(0, 0),
      emptyPng(2 ** 31 - 1, 1),
      emptyPng(1, 2 ** 31 - 1),
    ]) {
      expectError(await ask(pictureQuestion(bytes)), 400);
    }
  });

  test.each(["jpeg", "png", "webp", "gif", "avif"] as const)(
    "in %s that is cut off or damaged is refused or answered",
    async (format) => {
      const noise = {
        create: {
          width: 64,
          height: 64,
          channels: 3,
          background: "black",
          noise: { type: "gaussian", mean: 128, sigma: 60 },
        },
      } as const;
      const whole = await sharp(noise).toFormat(format).toBuffer();
      expect((await ask(pictureQuestion(whole))).status).toBe(200);
      for (const share of [0.02, 0.3, 0.6, 0.9])
        expectError(await ask(pictureQuestion(whole.subarray(0, whole.length * share))), 400);
      const random = new Random(1);
      for (let i = 0; i < 15; i++) {
        const damaged = Buffer.from(whole);
        for (let k = 0; k < 8; k++)
          damaged[Math.floor(random.uniform() * damaged.length)] = Math.floor(random.uniform() * 256);
        const answer = await ask(pictureQuestion(damaged));
        if (answer.status !== 200) expectError(answer, 400);
      }
    },
  );

  test("that moves is seen as its first frame", async () => {
    const frame = (background: string) =>
      sharp({ create: { width: 40, height: 30, channels: 3, background } })
        .png()
        .toBuffer();
    const frames = await Promise.all(["red", "blue", "green"].map(frame));
    const moving = await sharp(frames, { join: { animated: true } })
      .gif({ delay: [50, 50, 50] })
      .toBuffer();
    expect((await sharp(moving).metadata()).pages).toBe(3);
    const still = await sharp(frames[0]).gif().toBuffer();
    const [one, other] = [await ask(pictureQuestion(moving)), await ask(pictureQuestion(still))];
    expect(one.status).toBe(200);
    expect(JSON.parse(one.text).choices).toEqual(JSON.parse(other.text).choices);
  });

  test("that is a program is refused, whatever it is called", async () => {
    const svg = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>";
    const laughs = Array.from({ length: 9 }, (_, i) => `<!ENTITY a${i + 1} "${`&a${i};`.repeat(10)}">`).join("");
    const bomb = `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a0 "ha">${laughs}]><svg xmlns="http://www.w3.org/2000/svg">&a9;</svg>`;
    for (const text of [
      svg,
      bomb,
      `\n${svg}`,
      `<?xml version="1.0"?>${svg}`,
      "%PDF-1.7\n",
      "%!PS-Adobe",
      "P6 9 9 255\n",
    ]) {
      for (const type of ["svg+xml", "png"]) {
        const answer = await ask(pictureQuestion(`data:image/${type};base64,${Buffer.from(text).toString("base64")}`));
        expectError(answer, 400);
        expect(answer.text).toContain("invalid_image");
      }
    }
  });

  test.each([
    "file:///etc/passwd",
    "/etc/passwd",
    "http://127.0.0.1/",
    "http://localhost:1/",
    "x",
    "data:",
    "javascript:1",
    "C:\\picture.png",
  ])("at %s is not looked for", async (url) => {
    const answer = await ask(pictureQuestion(url));
    expectError(answer, 400);
    expect(answer.text).toContain("invalid_image_url");
  });

  test("may be one of many, but not of too many", async () => {
    const small = await sharp({ create: { width: 3, height: 3, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    expect((await ask(pictureQuestion(small, small))).status).toBe(200);
    expectError(await ask(pictureQuestion(...Array.from({ length: 17 }, () => small))), 400);
    expectError(await ask(pictureQuestion(...Array.from({ length: 5000 }, () => small))), [400, 413]);
  });

  test("and others that are large only together are refused before they are decoded", async () => {
    const large = emptyPng(6000, 6000);
    const begin = performance.now();
    expectError(await ask(pictureQuestion(...Array.from({ length: 16 }, () => large))), 400);
    expect(performance.now() - begin).toBeLessThan(1500);
  });
});

describe("a connection", () => {
  test("that is closed at any moment costs the others nothing", async () => {
    const random = new Random(7);
    const png = await sharp({ create: { width: 30, height: 30, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    const bodies = [
      question(),
      question("Tell me.", { stream: true, max_tokens: 60 }),
      question("Twice.", { n: 3, max_tokens: 20 }),
      pictureQuestion(png),
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

  test("that sends its header one letter at a time keeps nobody waiting", async () => {
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

  test("can ask many questions before it hears the first answer", async () => {
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

test("in the end the server is as it was in the beginning", async () => {
  await expectWell();
  await expect.poll(() => metric("questions_running"), { timeout: 10_000 }).toBe(0);
  expect(await metric("questions_waiting")).toBe(0);
  expect(await metric('http_requests_total{route="/v1/chat/completions",status="500"}')).toBe(0);
  expect(usedMemory() - memoryBefore).toBeLessThan(60_000_000);
});

/** A PNG of one colour whose header says width x height; of `rows` rows, packed, there is something. */
function emptyPng(width: number, height: number, rows = Math.min(height, 6000)): Buffer {
  const chunk = (name: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // One bit a pixel, grey.
  header[8] = 1;
  const pixels = deflateSync(Buffer.alloc(rows * (1 + Math.ceil(Math.min(width, 50_000) / 8))), { level: 9 });
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())]);
}
