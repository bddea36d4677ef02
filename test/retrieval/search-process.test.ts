import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, utimesSync } from "node:fs";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { afterEach, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { modelPath } from "../../src/chat/models.ts";
import { updateIndex } from "../../src/retrieval/image-index.ts";
import { ImageSearch } from "../../src/retrieval/image-search.ts";
import { LocalImageSearch } from "../../src/retrieval/local-image-search.ts";
import { openRetrievalModel } from "../../src/retrieval/open-retrieval-model.ts";
import { image } from "../helpers/cli-command.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const root = temporaryFolder();
const fixture = new URL("fixtures/nano.pictures", import.meta.url).pathname;
const names = ["astronaut.jpg", "cat.jpg", "coffee.jpg"];
const folder = join(root, "images");

beforeAll(() => {
  mkdirSync(folder);
  for (const name of names) {
    copyFileSync(image(name), join(folder, name));
    utimesSync(join(folder, name), 1e9, 1e9);
  }
});
afterEach(() => vi.unstubAllEnvs());

/** A folder with `count` different images. */
async function paintedFolder(name: string, count: number): Promise<string> {
  const path = join(root, name);
  mkdirSync(path);
  for (let i = 0; i < count; i++) {
    const background = { r: 10 * i, g: 200 - 5 * i, b: 90 };
    const file = join(path, `${i}.jpg`);
    await sharp({ create: { width: 300, height: 200, channels: 3, background } })
      .jpeg()
      .toFile(file);
    // A file that has just been written may still change within the resolution of its time, so it would not count as unchanged.
    utimesSync(file, 1e9, 1e9);
  }
  return path;
}

/** CPU time of this process, with all of its threads, in microseconds. */
async function cpuTimeOf(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

test("images are embedded in another process, so the calling one has next to nothing to compute", async () => {
  const painted = await paintedFolder("painted", 24);
  const local = await cpuTimeOf(async () => {
    const options = { modelPath: resolve(modelPath("nano")), index: join(root, "local.images") };
    await (await LocalImageSearch.open(painted, options)).close();
  });
  const remote = await cpuTimeOf(async () => {
    await (await ImageSearch.open(painted, { index: join(root, "process.images") })).close();
  });
  expect(remote).toBeLessThan(local / 5);
});

test("an aborted index keeps what has been embedded; an aborted search rejects with the reason", async () => {
  const many = await paintedFolder("many", 20);
  const index = join(root, "aborted.images");
  const stop = new AbortController();
  const reason = new Error("stopped by the test");
  const onProgress = (done: number) => done === 8 && stop.abort(reason);
  await expect(ImageSearch.open(many, { index, onProgress, signal: stop.signal })).rejects.toBe(reason);
  const totals = new Set<number>();
  await using search = await ImageSearch.open(many, { index, onProgress: (_, total) => totals.add(total) });
  const [remaining = 0] = totals;
  expect(totals.size).toBe(1);
  expect(remaining).toBeLessThanOrEqual(12);
  expect(search.size).toBe(20);
  const cancel = new AbortController();
  const found = search.search("a cat", { signal: cancel.signal });
  cancel.abort(reason);
  await expect(found).rejects.toBe(reason);
  expect(await search.search("a cat", { top: 3 })).toHaveLength(3);
});

test("a closed search rejects calls; a crashed process fails its calls, and the next call starts it again", async () => {
  const search = await ImageSearch.open(folder, { index: join(root, "crash.images") });
  const before = await search.search("a cat");
  const { child } = (search as unknown as { process: { child: { pid: number; once: NodeJS.EventEmitter["once"] } } })
    .process;
  const exited = new Promise((resolve) => child.once("close", resolve));
  // The last of many calls cannot be answered before the signal arrives.
  const calls = Array.from({ length: 100 }, () => search.search("a cat"));
  const settled = Promise.allSettled(calls);
  process.kill(child.pid, "SIGKILL");
  expect((await settled).at(-1)).toMatchObject({
    status: "rejected",
    reason: {
      message: "The image search process exited unexpectedly: signal SIGKILL. The next call starts it again.",
    },
  });
  await exited;
  expect(await search.search("a cat")).toEqual(before);
  await search.close();
  await search.close();
  await expect(search.search("a cat")).rejects.toThrow(/closed/);
});

test("an error thrown by a callback rejects the call", async () => {
  const onProgress = () => {
    throw new Error("from the callback");
  };
  await expect(ImageSearch.open(folder, { index: join(root, "callback.images"), onProgress })).rejects.toThrow(
    "from the callback",
  );
});

test("an index written before images were called images is read; nothing is embedded again", async () => {
  const index = join(root, "old.pictures");
  copyFileSync(fixture, index);
  const model = await openRetrievalModel("nano");
  onTestFinished(() => model.close());
  const embedImages = vi.spyOn(model, "embedImages");
  const messages: string[] = [];
  const old = await updateIndex(folder, model, index, { onMessage: (message) => messages.push(message) });
  expect(old.names).toEqual(names);
  expect(messages).toEqual([]);
  expect(embedImages).not.toHaveBeenCalled();
  // Its embeddings are those of the model, which differ a little in batches of another size.
  const fresh = await updateIndex(folder, model, join(root, "fresh.images"));
  expect(embedImages).toHaveBeenCalled();
  expect(old.ids).toEqual(fresh.ids);
  expect(old.vectors).toEqual(fresh.vectors);
});

test("an index under its former name in the cache folder is taken over", async () => {
  const cache = join(root, "cache");
  vi.stubEnv("MINIGPT4_CACHE", cache);
  await (await ImageSearch.open(folder)).close();
  const indexes = join(cache, "indexes");
  const [file = ""] = readdirSync(indexes);
  expect(file).toMatch(/^[0-9a-f]{32}\.images$/);
  const former = join(indexes, file.replace(".images", ".pictures"));
  renameSync(join(indexes, file), former);
  const progress = vi.fn();
  await (await ImageSearch.open(folder, { onProgress: progress })).close();
  expect(progress).not.toHaveBeenCalled();
  expect(existsSync(former)).toBe(false);
  expect(readdirSync(indexes)).toEqual([file]);
});
