/** Only who has a key gets through, and no key is ever told. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { expect, test } from "vitest";
import { readApiKeys, requireApiKey } from "../../src/server/api-keys.ts";
import type { ServerEnv } from "../../src/server/server-context.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const keys = ["first-key-0123456789", "second-key-0123456789"];

function ask(known: readonly string[], authorization?: string): Promise<Response> {
  const app = new Hono()
    .use(requireApiKey(known))
    .get("/", (context) => context.text("come in"))
    .onError((error) => (error instanceof HTTPException ? error.getResponse() : new Response(null, { status: 500 })));
  return Promise.resolve(app.request("/", { headers: authorization === undefined ? {} : { authorization } }));
}

test.each([...keys.map((key) => `Bearer ${key}`), `bearer ${keys[0]}`, `Bearer   ${keys[1]}`])(
  "%s is let through",
  async (authorization) => {
    const response = await ask(keys, authorization);
    expect(await response.text()).toBe("come in");
  },
);

test("accepts all spellings of the header", async () => {
  const seen = new Set<unknown>();
  const app = new Hono<ServerEnv>().use(requireApiKey(keys)).get("/", (context) => {
    seen.add(context.get("key"));
    return context.text("come in");
  });
  for (const way of ["Bearer ", "bearer ", "BEARER   "]) {
    await app.request("/", { headers: { authorization: `${way}${keys[0]}` } });
  }
  expect([...seen]).toEqual([keys[0]]);
});

test.each([
  undefined,
  "",
  "Bearer",
  "Bearer ",
  keys[0],
  `Basic ${keys[0]}`,
  `Bearer ${keys[0]}x`,
  `Bearer ${keys[0]?.slice(0, -1)}`,
  `Bearer ${keys[0]?.toUpperCase()}`,
  `Bearer ${keys.join(",")}`,
  `Bearer ${keys[0]} ${keys[1]}`,
  `Bearer undefined`,
  `Bearer ${"x".repeat(10_000)}`,
])("%.60s is rejected with an OpenAI error", async (authorization) => {
  const response = await ask(keys, authorization);
  expect(response.status).toBe(401);
  expect(response.headers.get("www-authenticate")).toMatch(/^Bearer realm="minigpt4"/);
  const text = await response.text();
  expect(JSON.parse(text).error).toEqual({
    message: expect.any(String),
    type: "invalid_request_error",
    param: null,
    code: "invalid_api_key",
  });
  for (const key of keys) expect(text).not.toContain(key.slice(0, 10));
});

test("an empty list of keys rejects every request", async () => {
  expect((await ask([], "Bearer ")).status).toBe(401);
  expect((await ask([], "Bearer undefined")).status).toBe(401);
});

test("reads keys from the environment and from a file, without duplicates", async () => {
  const file = join(temporaryFolder(), "keys");
  writeFileSync(file, `\ufeff# of the team\r\n${keys[1]}\r\n\n  third-key-0123456789  \n`);
  expect(await readApiKeys({})).toEqual([]);
  expect(await readApiKeys({ MINIGPT4_API_KEYS: keys.join(" , ") })).toEqual(keys);
  expect(await readApiKeys({ MINIGPT4_API_KEYS: keys.join() }, file)).toEqual([...keys, "third-key-0123456789"]);
});

test.each([
  ["", "API key 1 of MINIGPT4_API_KEYS has 0 characters"],
  [`${keys[0]},`, "API key 2 of MINIGPT4_API_KEYS has 0 characters"],
  [`${keys[0]},a-secret`, "API key 2 of MINIGPT4_API_KEYS has 8 characters"],
  [`a-secret that-has-spaces`, "API key 1 of MINIGPT4_API_KEYS has characters"],
  [`a-secret-with-ümläuts`, "API key 1 of MINIGPT4_API_KEYS has characters"],
])("%s is an error that does not reveal the key", async (listed, message) => {
  const error = await readApiKeys({ MINIGPT4_API_KEYS: listed }).catch((error) => error);
  expect(error.message).toContain(message);
  expect(error.message).not.toContain("a-secret");
});

test("rejects a file without keys, and an unreadable one", async () => {
  const file = join(temporaryFolder(), "keys");
  writeFileSync(file, "# nothing yet\n\n");
  await expect(readApiKeys({}, file)).rejects.toThrow("contains no API key");
  await expect(readApiKeys({}, `${file}.missing`)).rejects.toThrow(": no such file or folder");
});
