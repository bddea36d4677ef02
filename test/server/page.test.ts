import { mkdirSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { serve, tinyEngine } from "../helpers/running-server.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const engine = await tinyEngine();
const parent = temporaryFolder();
const folder = join(parent, "web");
mkdirSync(join(folder, "assets"), { recursive: true });
writeFileSync(join(parent, "secret.txt"), "secret");
writeFileSync(join(folder, "index.html"), "<!doctype html><title>Page</title>");
writeFileSync(join(folder, "assets", "index-BxT3_k9a.js"), "export {};");
writeFileSync(join(folder, "assets", "engine-C0ffee12.wasm"), "wasm");

test("files have content types, a strict policy, and immutable caching if hashed", async () => {
  const { url } = await serve(engine, { pageFolder: folder });
  const page = await fetch(url);
  expect(await page.text()).toContain("<title>Page</title>");
  expect(page.headers.get("content-type")).toMatch(/^text\/html/);
  expect(page.headers.get("cache-control")).toBe("no-cache");
  const policy = page.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'self'");
  expect(policy).toContain("img-src 'self' blob: data:");
  expect(policy).toContain("'wasm-unsafe-eval'");
  expect(policy).not.toContain("unsafe-inline");
  expect(page.headers.get("x-content-type-options")).toBe("nosniff");
  const script = await fetch(`${url}/assets/index-BxT3_k9a.js`);
  expect(script.headers.get("content-type")).toMatch(/^text\/javascript/);
  expect(script.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
  expect((await fetch(`${url}/assets/engine-C0ffee12.wasm`)).headers.get("content-type")).toBe("application/wasm");
  expect((await fetch(`${url}/missing.js`)).status).toBe(404);
  expect((await fetch(`${url}/v1/nothing`, { method: "POST" })).status).toBe(404);
  expect(await (await fetch(`${url}/v1/models`)).json()).toHaveProperty("data");
});

test("no path escapes the folder", async () => {
  const { url } = await serve(engine, { pageFolder: folder });
  const { port, hostname } = new URL(url);
  const paths = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/assets/..\\..\\secret.txt",
    "//secret.txt",
  ];
  for (const path of paths) {
    const text = await new Promise<string>((resolve) => {
      // Unlike fetch, this sends the path as it is.
      request({ hostname, port, path }, (response) => {
        let all = "";
        response.on("data", (data) => {
          all += data;
        });
        response.on("end", () => resolve(`${response.statusCode} ${all}`));
      }).end();
    });
    expect(text).not.toMatch(/^2|^404 secret/);
  }
});

test("says how to build a missing page", async () => {
  const { url } = await serve(engine, { pageFolder: join(parent, "none") });
  expect(await (await fetch(url)).text()).toMatch(/has not been built.*npm run/);
});
