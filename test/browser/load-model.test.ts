/** A model loaded from a URL answers as in Node; images and workers, which need a browser, are in the system tests. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";
import { beforeAll, expect, test, vi } from "vitest";
import { loadModel } from "../../src/browser/index.ts";
import { exportWeb } from "../../src/convert/export-web.ts";
import { MiniGPT4 } from "../../src/index.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const site = join(folder, "site");
const base = "https://example.com/models/tiny";

beforeAll(async () => {
  const page = join(folder, "page");
  mkdirSync(page);
  writeFileSync(join(page, "index.html"), "<!doctype html><html><head><title>t</title></head></html>");
  await exportWeb(model, site, { page, name: "tiny", quantization: "float32" });
});

async function readFromSite(url: string): Promise<Response> {
  const { pathname } = new URL(url);
  return new Response(new Uint8Array(readFileSync(join(site, pathname.replace("/models/tiny/", "")))));
}

test.each([base, `${base}/`, `${base}/model.json`])("loads %s and answers as in Node", async (url) => {
  const fetch = vi.fn(readFromSite);
  const onProgress = vi.fn();
  await using there = await loadModel(url, { ort, device: "wasm", threads: 1, fetch, onProgress });
  expect(there).toMatchObject({ device: "wasm", threads: 1, model: { name: "tiny" } });
  expect(fetch.mock.calls.map(([address]) => address)).toEqual([
    `${base}/model.json`,
    expect.stringMatching(/\/models\/tiny\/tokenizer\.bin\?[0-9a-f]{16}$/),
    expect.stringMatching(/\/models\/tiny\/weights-0\.bin\?[0-9a-f]{16}$/),
  ]);
  const { received, total } = onProgress.mock.lastCall?.[0] ?? {};
  expect(received).toBe(total);

  await using here = await MiniGPT4.load(model);
  const options = { maxNewTokens: 16 };
  expect(await there.chat().answer("Hello", options)).toEqual(await here.chat().answer("Hello", options));
});

test("after close(), requests fail", async () => {
  const closed = await loadModel(base, { ort, device: "wasm", threads: 1, fetch: readFromSite });
  await closed.close();
  await closed.close();
  await expect(closed.describe(new Uint8Array())).rejects.toMatchObject({ code: "model_closed" });
});

test("a file that is missing is named", async () => {
  const fetch = async (url: string) =>
    url.includes("weights-0") ? new Response(null, { status: 404 }) : readFromSite(url);
  await expect(loadModel(base, { ort, device: "wasm", threads: 1, fetch })).rejects.toThrow(
    "weights-0.bin is missing: the host responded 404",
  );
});
