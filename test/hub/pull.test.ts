/** Files in the cache, with the options that use it. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { type PullProgress, pull, pullModel } from "../../src/hub/pull.ts";
import {
  breaksOff,
  content,
  hubAnswering,
  model,
  sendHead,
  serverAnswering,
  wellBehaved,
} from "../helpers/pull-server.ts";
import { temporaryFolder } from "../helpers/weight-files.ts";

function emptyCache() {
  const cacheFolder = temporaryFolder();
  const models = join(cacheFolder, "models");
  return {
    cacheFolder,
    models,
    target: join(models, "tiny.gguf"),
    names: () => (existsSync(models) ? readdirSync(models).sort() : []),
  };
}

const complete = ["tiny.gguf", "tiny.gguf.sha256"];

test("fetches a file of the hub at its revision, tells how far it is, and remembers the hash", async () => {
  const cache = emptyCache();
  const hub = await hubAnswering(wellBehaved);
  const told: PullProgress[] = [];
  const path = await pullModel(model, { ...cache, ...hub, onProgress: (progress) => told.push(progress) });
  expect(path).toBe(cache.target);
  expect(readFileSync(path).equals(content)).toBe(true);
  expect(hub.requests.map((request) => request.url)).toEqual(Array(2).fill("/someone/tiny/resolve/abc123/tiny.gguf"));
  expect(told.at(-1)).toEqual({ file: "tiny.gguf", received: content.length, total: content.length });
  expect(told.every(({ received }, i) => received > (told[i - 1]?.received ?? 0))).toBe(true);
  expect(cache.names()).toEqual(complete);
  expect(readFileSync(`${path}.sha256`, "utf8")).toBe(`${model.sha256}  tiny.gguf\n`);
});

test("what is there is neither fetched nor hashed again", async () => {
  const cache = emptyCache();
  await pullModel(model, { ...cache, ...(await hubAnswering(wellBehaved)) });
  // Only a file that is not read can have other bytes and still pass.
  writeFileSync(cache.target, Buffer.alloc(content.length));
  expect(await pullModel(model, { ...cache, offline: true })).toBe(cache.target);
});

test("a file put there by hand is taken if its hash is right, and replaced if not", async () => {
  const cache = emptyCache();
  mkdirSync(cache.models);
  writeFileSync(cache.target, content);
  expect(await pullModel(model, { ...cache, offline: true })).toBe(cache.target);
  expect(cache.names()).toEqual(complete);

  const other = emptyCache();
  mkdirSync(other.models);
  writeFileSync(other.target, Buffer.alloc(content.length));
  await expect(pullModel(model, { ...other, offline: true })).rejects.toThrow(other.target);
  await pullModel(model, { ...other, ...(await hubAnswering(wellBehaved)) });
  expect(readFileSync(other.target).equals(content)).toBe(true);
});

test("a broken connection is taken up where it broke", async () => {
  const cache = emptyCache();
  const hub = await hubAnswering((...args) => (args[3].ranges.length < 3 ? breaksOff : wellBehaved)(...args));
  expect(readFileSync(await pullModel(model, { ...cache, ...hub })).equals(content)).toBe(true);
  expect(hub.ranges[0]).toBe("bytes=0-");
  expect(hub.ranges).toHaveLength(3);
  for (const range of hub.ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
  expect(cache.names()).toEqual(complete);
});

test("a later pull goes on from what an interrupted one left", async () => {
  const cache = emptyCache();
  const abort = new AbortController();
  const breaking = await hubAnswering(breaksOff);
  const onProgress = () => abort.abort(new Error("Ctrl-C"));
  await expect(pullModel(model, { ...cache, ...breaking, onProgress, signal: abort.signal })).rejects.toThrow("Ctrl-C");
  expect(cache.names()).toEqual(["tiny.gguf.partial"]);
  const { size } = statSync(`${cache.target}.partial`);
  expect(size).toBeGreaterThan(0);

  const hub = await hubAnswering(wellBehaved);
  expect(readFileSync(await pullModel(model, { ...cache, ...hub })).equals(content)).toBe(true);
  expect(hub.ranges).toEqual([`bytes=${size}-`]);
  expect(cache.names()).toEqual(complete);
});

test("takes over what a killed process left, but not what another still writes", async () => {
  const cache = emptyCache();
  mkdirSync(cache.models);
  const [killed, living] = [`${cache.target}.1.partial`, `${cache.target}.2.partial`];
  writeFileSync(killed, content.subarray(0, 1234));
  utimesSync(killed, new Date(0), new Date(0));
  writeFileSync(living, content.subarray(0, 99));
  const hub = await hubAnswering(wellBehaved);
  await pullModel(model, { ...cache, ...hub });
  expect(hub.ranges).toEqual(["bytes=1234-"]);
  expect(cache.names()).toEqual(["tiny.gguf", "tiny.gguf.2.partial", "tiny.gguf.sha256"]);
});

test("a server without ranges sends everything again", async () => {
  const cache = emptyCache();
  mkdirSync(cache.models);
  writeFileSync(`${cache.target}.partial`, "something");
  const hub = await hubAnswering((_, response) => response.end(content));
  expect(readFileSync(await pullModel(model, { ...cache, ...hub })).equals(content)).toBe(true);
});

test("several pulls at once give one right file", async () => {
  const cache = emptyCache();
  mkdirSync(cache.models);
  writeFileSync(`${cache.target}.partial`, content.subarray(0, 1000));
  const hub = await hubAnswering(wellBehaved);
  const paths = await Promise.all(Array.from({ length: 6 }, () => pullModel(model, { ...cache, ...hub })));
  expect(new Set(paths)).toEqual(new Set([cache.target]));
  expect(hub.ranges.filter((range) => range === "bytes=1000-")).toHaveLength(1);
  expect(readFileSync(cache.target).equals(content)).toBe(true);
  expect(cache.names()).toEqual(complete);
});

test("a wrong hash deletes what was received and says both hashes", async () => {
  const cache = emptyCache();
  const wrong = Buffer.alloc(content.length, "not the fox");
  const hub = await hubAnswering((_, response) => {
    sendHead(response, 0, wrong.length);
    response.end(wrong);
  });
  await expect(pullModel(model, { ...cache, ...hub })).rejects.toThrow(
    new RegExp(`should be ${model.sha256}, but is [0-9a-f]{64}`),
  );
  expect(cache.names()).toEqual([]);
});

test("an endless body is cut off at the file's size", async () => {
  const cache = emptyCache();
  const hub = await hubAnswering((_, response) => {
    response.writeHead(200);
    const more = () => {
      while (!response.destroyed && response.write(content));
    };
    response.on("drain", more);
    more();
  });
  expect(readFileSync(await pullModel(model, { ...cache, ...hub })).equals(content)).toBe(true);
});

const hostile: [name: string, status: number, type: string, message: RegExp][] = [
  ["a login page", 200, "text/html; charset=utf-8", /web page/],
  ["no size", 200, "application/octet-stream", /size/],
  ["not found", 404, "text/plain", /answered 404/],
  ["a failing server", 500, "application/json", /answered 500/],
];
test.each(hostile)("%s instead of the file's size, without end", async (_, status, type, message) => {
  const cache = emptyCache();
  const hub = await serverAnswering((_request, response) => {
    response.writeHead(status, { "content-type": type });
    response.on("drain", () => response.write(content));
    response.write(content);
  });
  const failure = pullModel(model, { ...cache, ...hub });
  await expect(failure).rejects.toThrow(message);
  await expect(failure).rejects.toThrow(`save it as ${cache.target}`);
  expect(cache.names()).toEqual([]);
});

test.each(hostile.filter(([name]) => name !== "no size"))(
  "%s instead of the file",
  async (_, status, type, message) => {
    const cache = emptyCache();
    const hub = await hubAnswering((_request, response) => {
      response.writeHead(status, { "content-type": type });
      response.end("<html></html>");
    });
    await expect(pullModel(model, { ...cache, ...hub })).rejects.toThrow(message);
    expect(hub.ranges).toHaveLength(1);
    expect(cache.names()).toEqual([]);
  },
);

test("another range than asked for is refused", async () => {
  const cache = emptyCache();
  const hub = await hubAnswering((_, response) => {
    sendHead(response, 7, content.length);
    response.end(content.subarray(7));
  });
  await expect(pullModel(model, { ...cache, ...hub })).rejects.toThrow("bytes 7-");
});

test("a file of another size is not fetched", async () => {
  const hub = await hubAnswering(wellBehaved);
  const cache = emptyCache();
  await expect(pullModel({ ...model, bytes: 5 }, { ...cache, ...hub })).rejects.toThrow("3000000 bytes, not 5");
  expect(hub.ranges).toEqual([]);
});

test("a silent server is given up after a few seconds", { timeout: 20_000 }, async () => {
  const hub = await serverAnswering(() => {});
  await expect(pullModel(model, { ...emptyCache(), ...hub })).rejects.toThrow("silent for 5 s");
});

test("all sources' failures are told, a line each, and what to do by hand", async () => {
  const cache = emptyCache();
  const [source] = model.sources;
  if (source?.kind !== "hub") throw new Error("the model comes from a hub");
  const sources = [source, { ...source, repo: "someone/copy" }];
  const failure = pullModel({ ...model, sources }, { ...cache, hubUrl: "http://127.0.0.1:1" });
  await expect(failure).rejects.toThrow(
    /someone\/tiny: fetch failed: .+\n.*someone\/copy: fetch failed: .+\n.*save it as/,
  );
  await expect(failure).rejects.toThrow(`${model.sha256}) yourself and save it as ${cache.target}`);
});

test("the user's token is not sent to another hub", async () => {
  vi.stubEnv("HF_TOKEN", "hf_secret");
  const hub = await hubAnswering(wellBehaved);
  await pullModel(model, { ...emptyCache(), ...hub });
  expect(hub.requests.map((request) => request.headers.authorization)).toEqual([undefined, undefined]);
  vi.unstubAllEnvs();
});

test("an unknown name lists those that are known", async () => {
  await expect(pull("constructor")).rejects.toThrow(/"constructor".*smollm2-135m-instruct/);
});
