/** Pulling a released MiniGPT-4 when something goes wrong. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { modelPath } from "../../src/chat/models.ts";
import type { PullPlan } from "../../src/convert/pull-released.ts";
import { allFiles, areWeights, fresh, name, pulling } from "../helpers/pulling.ts";
import { releasedServer } from "../helpers/released-server.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

describe("an interrupted pull resumes", () => {
  test("where the connection was lost", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    let broken = 0;
    server.intervene = (request, response) => {
      if (request.method !== "GET" || !request.url?.endsWith("eva_vit_g.pth") || broken++ > 0) return false;
      const content = server.contents.storage?.get("eva_vit_g.pth") ?? Buffer.alloc(0);
      response.writeHead(206, { "content-range": `bytes 0-${content.length - 1}/${content.length}` });
      response.write(content.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 50));
      return true;
    };
    await pulling(server, cache);
    const ranges = server.asked.filter((line) => /^GET .*eva_vit_g.pth/.test(line)).map((line) => line.split(" ")[2]);
    expect(ranges).toEqual(["bytes=0-", "bytes=100000-"]);
  });

  test("wherever it was stopped, without downloading a byte twice", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    let fetched = 0;
    for (let stops = 1; ; stops++) {
      const controller = new AbortController();
      let steps = 0;
      const step = () => {
        if (++steps === 4 * stops) controller.abort(new Error("Ctrl-C"));
      };
      const plans: PullPlan[] = [];
      const options = {
        signal: controller.signal,
        onStep: step,
        onFetch: step,
        onPlan: (p: PullPlan) => plans.push(p),
      };
      const outcome = await pulling(server, cache, options).catch((error: Error) => error);
      if (!(outcome instanceof Error)) {
        expect(stops).toBeGreaterThan(3);
        break;
      }
      expect(outcome.message).toBe("Ctrl-C");
      expect(() => modelPath(name, cache.cacheFolder)).toThrow("minigpt4 pull minigpt4-7b");
      const missing = plans[0]?.missing ?? 0;
      if (stops > 1) expect(missing).toBeLessThanOrEqual(fetched);
      fetched = missing;
    }
    expect(fetched).toBe(0);
    expect(cache.names()).toEqual([]);
    expect(allFiles(cache.out).filter((file) => file.endsWith(".partial"))).toEqual([]);
  });

  test("after the process was killed", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const file = "pytorch_model-00001-of-00003.bin";
    const content = server.contents["Vision-CAIR/vicuna-7b"]?.get(file) ?? Buffer.alloc(0);
    let stall = () => {};
    const stalled = new Promise<void>((resolve) => {
      stall = resolve;
    });
    server.intervene = (request, response) => {
      if (request.method !== "GET" || !request.url?.includes("00001")) return false;
      response.writeHead(206, { "content-range": `bytes 0-${content.length - 1}/${content.length}` });
      response.write(content.subarray(0, 100_000), stall);
      return true;
    };
    const root = join(import.meta.dirname, "..", "..");
    const program = `
      const { pullReleased } = await import(${JSON.stringify(join(root, "src/convert/pull-released.ts"))});
      const { releasedModels } = await import(${JSON.stringify(join(root, "src/convert/released.ts"))});
      await pullReleased(releasedModels.get("${name}"), ${JSON.stringify({ ...server.options, cacheFolder: cache.cacheFolder })});`;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", program], { cwd: root });
    const ended = once(child, "exit");
    await stalled;
    const partial = () => cache.names().find((found) => found.includes("00001") && found.endsWith(".partial")) ?? "";
    await vi.waitFor(() => expect(statSync(join(cache.files, partial())).size).toBe(100_000), 5000);
    child.kill("SIGKILL");
    await ended;
    server.intervene = () => false;
    const before = server.asked.length;
    await pulling(server, cache);
    const asked = server.asked.slice(before);
    expect(asked.find((line) => line.includes(file))).toMatch(/ bytes=100000-$/);
    expect(asked.filter((line) => line.includes("eva_vit"))).toEqual([]);
  });

  test("without a server, if all files are downloaded", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const stop = new AbortController();
    const onStep = () => stop.abort(new Error("stopped"));
    await expect(pulling(server, cache, { onStep, signal: stop.signal })).rejects.toThrow("stopped");
    const nowhere = { hubUrl: "http://127.0.0.1:1", storageUrl: "http://127.0.0.1:1" };
    expect(await pulling(server, cache, nowhere)).toMatchObject({ path: cache.out, fetched: 0 });
  });
});

describe("errors are thrown before anything is imported", () => {
  test.each([
    ["on the storage", "storage", "eva_vit_g.pth", "MD5"],
    ["LFS digest", "Vision-CAIR/vicuna-7b", "pytorch_model-00002-of-00003.bin", "SHA-256"],
    ["git blob id", "Vision-CAIR/vicuna-7b", "config.json", "git object id"],
  ])("a file whose digest does not match: %s", async (_, repo, file, algorithm) => {
    const [server, cache] = [await releasedServer(), fresh()];
    const right = server.contents[repo]?.get(file) ?? Buffer.alloc(0);
    let isWrong = true;
    server.intervene = (request) => {
      const wrong = Buffer.from(right);
      wrong[100] = (wrong[100] ?? 0) ^ 1;
      const isContent = isWrong && request.method === "GET" && request.url?.endsWith(file);
      server.contents[repo]?.set(file, isContent ? wrong : right);
      return false;
    };
    await expect(pulling(server, cache)).rejects.toThrow(
      new RegExp(`${file}.*its ${algorithm} should be [0-9a-f]+, but is`),
    );
    expect(cache.names().filter((found) => found.includes(file))).toEqual([]);
    expect(existsSync(cache.out)).toBe(false);
    isWrong = false;
    await expect(pulling(server, cache)).resolves.toMatchObject({ path: cache.out });
  });

  test.each([
    [
      404,
      "/tree/",
      "Vision-CAIR/minigpt4",
      "does not exist (any more). To use your own copy, pass it with --projection",
    ],
    [401, "/tree/", "Vision-CAIR/vicuna-7b", "to an access token. To use your own copy, pass it with --llm"],
    [403, "/tree/", "Vision-CAIR/vicuna-7b", "if it asks you to accept a licence, accept it"],
    [
      404,
      "eva_vit_g",
      "",
      "eva_vit_g.pth: the server answered 404 Not Found. To use your own copy, pass it with --vit",
    ],
    [500, "flant5xxl", "", "answered 500"],
  ])("a server that answers %i for %s%s", async (status, url, repo, message) => {
    const [server, cache] = [await releasedServer(), fresh()];
    server.intervene = (request, response) => {
      if (!request.url?.includes(url) || !request.url.includes(repo)) return false;
      response.writeHead(status, { "content-type": "application/json" }).end('{"error":"Access is restricted"}');
      return true;
    };
    await expect(pulling(server, cache)).rejects.toThrow(message);
    expect(server.asked.filter((line) => line.includes("bytes="))).toEqual([]);
    expect(cache.names()).toEqual([]);
  });

  test("a repository without the file, or without weights", async () => {
    const server = await releasedServer();
    server.contents["spaces/Vision-CAIR/minigpt4"]?.delete("prerained_minigpt4_7b.pth");
    await expect(pulling(server, fresh())).rejects.toThrow("minigpt4 has no file prerained_minigpt4_7b.pth (any more)");
    const other = await releasedServer();
    for (const file of [...(other.contents["Vision-CAIR/vicuna-7b"]?.keys() ?? [])].filter(areWeights)) {
      other.contents["Vision-CAIR/vicuna-7b"]?.delete(file);
    }
    other.contents["Vision-CAIR/vicuna-7b"]?.delete("pytorch_model.bin.index.json");
    await expect(pulling(other, fresh())).rejects.toThrow("Vision-CAIR/vicuna-7b has no weights");
  });

  test("a full disk", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    server.intervene = (request, response) => {
      if (request.method !== "HEAD") return false;
      response.writeHead(200, { "content-length": 4e15 }).end();
      return true;
    };
    await expect(pulling(server, cache)).rejects.toThrow(/ GB needed, but only [\d.]+ GB free on this disk/);
    expect(server.asked.filter((line) => line.includes("bytes="))).toEqual([]);
    expect(existsSync(cache.out)).toBe(false);
  });

  test("a server that is not reachable", async () => {
    const server = await releasedServer();
    await expect(pulling(server, fresh(), { storageUrl: "http://127.0.0.1:1" })).rejects.toThrow(
      /eva_vit_g.pth: fetch failed: /,
    );
  });

  test("a folder with other content", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const out = temporaryFolder();
    writeFileSync(join(out, "letter.txt"), "Dear");
    await expect(pulling(server, cache, { out })).rejects.toThrow("is not empty; choose another folder with --out");
    expect(server.asked).toEqual([]);
    expect(readFileSync(join(out, "letter.txt"), "utf8")).toBe("Dear");
  });
});
