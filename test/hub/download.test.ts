import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { statSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PartialFile } from "../../src/files/partial-file.ts";
import { download } from "../../src/hub/download.ts";
import { describeUrl } from "../../src/hub/remote-file.ts";
import { content, sendHead, serverAnswering } from "../helpers/pull-server.ts";
import { temporaryFolder } from "../helpers/weight-files.ts";

test("a redirect to another server gets the range, but not the token", async () => {
  const store = await serverAnswering((request, response) => {
    const begin = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1]);
    sendHead(response, begin, content.length);
    response.end(content.subarray(begin));
  });
  const hub = await serverAnswering((_, response) => {
    response.writeHead(302, { location: `${store.hubUrl}/signed` }).end();
  });
  const target = join(temporaryFolder(), "file");
  writeFileSync(`${target}.partial`, content.subarray(0, 1000));
  const partial = await PartialFile.open(target);
  const headers = { Authorization: "Bearer hf_secret" };
  await download(`${hub.hubUrl}/file`, partial, { headers, bytes: content.length, onProgress: () => {} });
  await partial.finish(undefined);
  expect(statSync(target).size).toBe(content.length);
  expect(hub.requests.map((request) => request.headers.authorization)).toEqual(["Bearer hf_secret"]);
  expect(store.requests.map(({ headers }) => [headers.authorization, headers.range])).toEqual([
    [undefined, "bytes=1000-"],
  ]);
});

test("a download that is aborted at any moment ends", async () => {
  const bytes = 400_000;
  const server = await serverAnswering((_, response) => {
    sendHead(response, 0, bytes);
    response.end(content.subarray(0, bytes));
  });
  const folder = temporaryFolder();
  for (let i = 0; i < 40; i++) {
    const stop = new AbortController();
    let pieces = 0;
    const onProgress = () => {
      if (++pieces > i % 5) stop.abort(new Error("Ctrl-C"));
    };
    const partial = await PartialFile.open(join(folder, `${i}`));
    const outcome = download(server.hubUrl, partial, { bytes, onProgress, signal: stop.signal });
    // It may come to its end before so many pieces.
    await expect(outcome.catch((error: Error) => error.message)).resolves.toSatisfy(
      (message) => message === "Ctrl-C" || partial.size === bytes,
    );
    await partial.keep();
  }
});

test("a partial file that is larger than the file is not resumed", async () => {
  const server = await serverAnswering((_, response) => response.end("abc"));
  const target = join(temporaryFolder(), "file");
  writeFileSync(`${target}.partial`, "of another version");
  const partial = await PartialFile.open(target);
  await download(server.hubUrl, partial, { bytes: 3, onProgress: () => {} });
  await partial.finish({ algorithm: "md5", hex: "900150983cd24fb0d6963f7d28e17f72" });
  expect(statSync(target).size).toBe(3);
});

test("resumes the file of a killed process of this machine, but not of a running one or of another machine", async () => {
  const folder = temporaryFolder();
  const here = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);
  const dead = spawnSync(process.execPath, ["--version"]).pid;
  const left = async (file: string, machine: string, process: number) => {
    const target = join(folder, file);
    writeFileSync(`${target}.${machine}-${process}-0a1b.partial`, "123");
    return PartialFile.countResumable(target);
  };
  expect(await left("dead", here, dead)).toBe(3);
  expect(await left("living", here, process.pid)).toBe(0);
  expect(await left("elsewhere", "00000000", dead)).toBe(0);
});

test.each([
  ["crc32c=AAAAAA==,md5=kAFQmDzST7DWlj99KOF/cg==", "900150983cd24fb0d6963f7d28e17f72"],
  ["md5=kAFQmDzST7DWlj99KOF/cg==", "900150983cd24fb0d6963f7d28e17f72"],
  ["crc32c=AAAAAA==", undefined],
  ["md5=short", undefined],
  [undefined, undefined],
])("reads the MD5 from the headers of Google's storage: %s", async (hashes, hex) => {
  const server = await serverAnswering((_, response) => {
    response.writeHead(200, { "content-length": 3, ...(hashes && { "x-goog-hash": hashes }) }).end();
  });
  const { bytes, digest } = await describeUrl(server.hubUrl, {});
  expect([bytes, digest?.hex]).toEqual([3, hex]);
});

test("refuses a server that does not publish the size of the file", async () => {
  const server = await serverAnswering((_, response) => response.writeHead(200).end());
  await expect(describeUrl(server.hubUrl, {})).rejects.toThrow("does not publish the size");
});
