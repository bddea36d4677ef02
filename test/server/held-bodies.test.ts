/** Bodies of requests that are not answered yet are bounded together, and for each client. */
import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { post, serve, tinyEngine, until, WatchedEngine } from "../helpers/running-server.ts";

const engine = await tinyEngine();
const [ada, bob, eve] = ["ada-0123456789abcdef", "bob-0123456789abcdef", "eve-0123456789abcdef"];
const maxBodyBytes = 1000;

function body(bytes: number): string {
  const text = JSON.stringify({ max_tokens: 2, messages: [{ role: "user", content: "Hello" }] });
  return text.padEnd(bytes, " ");
}

/** A connection on which requests are sent and answers are left lying. */
async function connected(url: string, requests: readonly string[]): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  await new Promise((resolve) => socket.once("connect", resolve));
  socket.on("error", () => {}).write(requests.join(""));
  return socket;
}

function head(fields: string): string {
  return `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n${fields}\r\n\r\n`;
}

test("requests beyond the memory for bodies get 429, and succeed once there is room", async () => {
  const watched = new WatchedEngine(engine);
  const server = await serve(watched, { maxBodyBytes, maxConcurrent: 1, apiKeys: [ada, bob, eve] });
  const ask = (key: string, bytes: number, scheme = "Bearer ") =>
    post(`${server.url}/v1/chat/completions`, body(bytes), { authorization: `${scheme}${key}` });
  watched.shut();
  const held: Promise<Response>[] = [];
  const hold = async (key: string) => {
    for (let i = 0; i < 4; i++) held.push(ask(key, maxBodyBytes));
    // The metrics tell how many of them have come.
    await until(async () => {
      const text = await (await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${key}` } })).text();
      return text.includes(`questions_waiting ${held.length - 1}\n`);
    });
  };
  await hold(ada);
  const refused = await ask(ada, 200, "bearer  ");
  expect(refused.status).toBe(429);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  expect(await refused.json()).toMatchObject({ error: { type: "rate_limit_error", code: "rate_limit_exceeded" } });
  // Too large is too large, whether there is room or not.
  expect((await ask(ada, maxBodyBytes + 1)).status).toBe(413);
  await hold(bob);
  expect((await ask(eve, 200)).status).toBe(429);
  expect((await fetch(`${server.url}/v1/models`, { headers: { authorization: `Bearer ${ada}` } })).status).toBe(200);
  watched.open();
  for (const answer of held) expect((await answer).status).toBe(200);
  for (const key of [ada, bob, eve]) expect((await ask(key, maxBodyBytes)).status).toBe(200);
});

test.each([
  ["declare a length and send nothing", head(`content-length: ${maxBodyBytes}`)],
  ["come in pieces and may become the largest", head("transfer-encoding: chunked")],
  ["stand one behind the other on one connection", head(`content-length: ${maxBodyBytes}`) + body(maxBodyBytes)],
])("bodies that %s count until their connection closes", async (_, request) => {
  const watched = new WatchedEngine(engine);
  const { url } = await serve(watched, { maxBodyBytes, maxConcurrent: 1 });
  const ask = async (bytes: number) => (await post(`${url}/v1/chat/completions`, body(bytes))).status;
  watched.shut();
  const together = request.includes("Hello");
  const sockets = together
    ? [await connected(url, Array(4).fill(request))]
    : await Promise.all(Array.from({ length: 4 }, () => connected(url, [request])));
  // No question, so that it is answered at once while there is room.
  await until(async () => (await post(`${url}/v1/chat/completions`, "x".repeat(200))).status === 429);
  // What has no body needs no room.
  expect((await fetch(`${url}/v1/models`)).status).toBe(200);
  watched.open();
  for (const socket of sockets) socket.destroy();
  await until(async () => (await ask(200)) === 200);
  expect(await Promise.all([1, 2, 3].map(() => ask(maxBodyBytes)))).toEqual([200, 200, 200]);
});
