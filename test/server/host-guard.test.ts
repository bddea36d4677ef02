/** Pages of other sites cannot use the server through a browser; programs and the server's own page can. */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { expect, test } from "vitest";
import { checkHost } from "../../src/server/guards.ts";

async function status(
  headers: Record<string, string>,
  { allowed = ["localhost", "Images.test:8080"], origins = [] as string[], method = "GET" } = {},
): Promise<number> {
  const app = new Hono()
    .use(checkHost(allowed, origins))
    .all("/", (context) => context.text("come in"))
    .onError((error) => (error instanceof HTTPException ? error.getResponse() : new Response(null, { status: 500 })));
  const response = await app.request("/", { method, headers });
  if (response.status !== 200) {
    expect(await response.json()).toMatchObject({
      error: { type: "invalid_request_error", message: expect.any(String) },
    });
  }
  return response.status;
}

test.each([
  "localhost",
  "localhost:8080",
  "LOCALHOST:1",
  "localhost.",
  "localhost.:8080",
  "images.test:8080",
  "127.0.0.1",
  "127.0.0.1:8080",
  "192.168.1.7:80",
  "[::1]",
  "[::1]:8080",
])("host %s is allowed", async (host) => {
  expect(await status({ host })).toBe(200);
});

test.each([
  "",
  "evil.test",
  "evil.test:8080",
  "localhost.evil.test",
  "evil.localhost",
  "127.0.0.1.evil.test",
  "images.test",
  "images.test:80",
  "localhost@evil.test",
  "evil.test#localhost",
  "localhost, evil.test",
  "localhost:80:80",
  "localhost:port",
  "[::1",
  "[evil]",
  "2130706433",
  "..",
])("host %s is rejected", async (host) => {
  expect(await status({ host })).toBe(403);
});

test('a request without a host is rejected; "*" allows any name', async () => {
  expect(await status({})).toBe(403);
  expect(await status({ host: "evil.test" }, { allowed: ["*"] })).toBe(200);
  expect(await status({ host: "evil.test" }, { allowed: [] })).toBe(403);
});

const host = "localhost:8080";

test.each([
  ["a program", {}],
  ["the server's own page", { origin: "http://localhost:8080", "sec-fetch-site": "same-origin" }],
  ["the server's own page behind a proxy with https", { origin: "https://localhost:8080" }],
  ["an address that was typed", { "sec-fetch-site": "none", "sec-fetch-mode": "navigate" }],
])("%s is allowed", async (_, headers: Record<string, string>) => {
  expect(await status({ host, ...headers }, { method: "POST" })).toBe(200);
});

test.each([
  ["another site", { origin: "https://evil.test" }],
  ["another port", { origin: "http://localhost:3000", "sec-fetch-site": "same-site" }],
  ["a page without an origin", { origin: "null" }],
  ["an origin that begins alike", { origin: "http://localhost:8080.evil.test" }],
  ["an empty origin", { origin: "" }],
  [
    "a form of another site",
    { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" },
  ],
])("%s is rejected", async (_, headers: Record<string, string>) => {
  expect(await status({ host, ...headers }, { method: "POST" })).toBe(403);
});

test("links to the page are allowed; framing it and embedding its images are not", async () => {
  const link = { host, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };
  expect(await status(link)).toBe(200);
  expect(await status({ ...link, "sec-fetch-dest": "iframe" })).toBe(403);
  expect(await status({ host, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" })).toBe(403);
});

test("only allowed origins may send requests", async () => {
  const headers = { host, origin: "https://friend.test", "sec-fetch-site": "cross-site" };
  expect(await status(headers, { origins: ["https://Friend.test"] })).toBe(200);
  expect(await status(headers, { origins: ["http://friend.test"] })).toBe(403);
  expect(await status(headers, { origins: ["*"] })).toBe(200);
  expect(await status({ ...headers, host: "evil.test" }, { origins: ["*"] })).toBe(403);
});
