/** The released MiniGPT-4 by its name: fetched from servers on this machine, imported, and asked. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { MiniGPT4, modelPath } from "../../../src/chat/minigpt4.ts";
import { importModel } from "../../../src/models/import/import.ts";
import { type PullPlan, type PullReleasedOptions, pullReleased } from "../../../src/models/import/pull-released.ts";
import { releasedModels } from "../../../src/models/import/released.ts";
import { temporaryFolder } from "../../cli/tiny-model.ts";
import { golden, goldenImport } from "./golden-import.ts";
import { type ReleasedServer, releasedServer } from "./released-server.ts";

const name = "minigpt4-7b";
const model = releasedModels.get(name) ?? fail();
/** The golden files' heads are narrower than those of the released ones. */
const heads = { vitHeads: 4, qformerHeads: 4 };
const weights = (file: string) => /\.(pth|bin)$/.test(file);

function fail(): never {
  throw new Error(`${name} should be known`);
}

function fresh() {
  const cacheFolder = temporaryFolder();
  const files = join(cacheFolder, "released", name);
  return {
    cacheFolder,
    files,
    out: join(cacheFolder, "models", `${name}-int4`),
    names: () => (existsSync(files) ? allFiles(files) : []),
  };
}

function pulling(server: ReleasedServer, { cacheFolder }: { cacheFolder: string }, more: PullReleasedOptions = {}) {
  return pullReleased(model, { ...server.options, ...heads, cacheFolder, ...more });
}

describe("a pull", () => {
  test("makes the folder that import makes of the same files, removes them, and the model answers by its name", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const plans: PullPlan[] = [];
    const told: string[] = [];
    const pulled = await pulling(server, cache, {
      onPlan: (plan) => plans.push(plan),
      onFetch: ({ file, received, total }) => received === total && told.push(file),
    });
    expect(pulled).toMatchObject({ path: cache.out, files: undefined });
    const fetched = plans[0]?.files.map((file) => file.name) ?? [];
    expect(fetched.filter(weights)).toEqual([
      "eva_vit_g.pth",
      "blip2_pretrained_flant5xxl.pth",
      "prerained_minigpt4_7b.pth",
      ...[1, 2, 3].map((i) => `vicuna-7b/pytorch_model-0000${i}-of-00003.bin`),
    ]);
    expect(fetched.filter((file) => !weights(file)).sort()).toEqual([
      "vicuna-7b/config.json",
      "vicuna-7b/generation_config.json",
      "vicuna-7b/pytorch_model.bin.index.json",
      "vicuna-7b/tokenizer.model",
    ]);
    expect(told).toEqual(fetched);
    expect(plans[0]?.missing).toBe(pulled.fetched);
    expect(cache.names()).toEqual([]);

    const direct = join(cache.cacheFolder, "direct");
    await importModel(goldenImport(direct));
    const same = (file: string) => readFileSync(join(cache.out, file)).equals(readFileSync(join(direct, file)));
    const made = allFiles(direct).filter((file) => file !== "import.json");
    expect(allFiles(cache.out).filter((file) => file !== "import.json")).toEqual(made);
    expect(made.filter((file) => !same(file))).toEqual([]);

    const loaded = await MiniGPT4.load(name, { pull: { cacheFolder: cache.cacheFolder } });
    const options = { maxNewTokens: 5 };
    const answer = await loaded.describe(join(import.meta.dirname, "../../../examples/pictures/cat.jpg"), options);
    await loaded.release();
    const reference = await MiniGPT4.load(direct);
    expect(answer).toBe(
      await reference.describe(join(import.meta.dirname, "../../../examples/pictures/cat.jpg"), options),
    );
    await reference.release();
    expect(answer.length).toBeGreaterThan(0);
  });

  test("of what is there asks nobody; a damaged folder is made again", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const { bytes } = await pulling(server, cache);
    const before = server.asked.length;
    expect(await pulling(server, cache)).toEqual({ path: cache.out, bytes, fetched: 0, files: undefined });
    expect(server.asked.length).toBe(before);
    writeFileSync(join(cache.out, "encoder.safetensors"), "damaged");
    await expect(pulling(server, cache)).resolves.toBeDefined();
    expect(statSync(join(cache.out, "encoder.safetensors")).size).toBeGreaterThan(100);
  });

  test("keeps the files if asked to, and makes another precision of them without fetching them again", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    expect((await pulling(server, cache, { keepFiles: true })).files).toBe(cache.files);
    const before = server.asked.length;
    const { path, fetched } = await pulling(server, cache, { keepFiles: true, precision: "int8" });
    expect([path, fetched]).toEqual([join(cache.cacheFolder, "models", `${name}-int8`), 0]);
    expect(server.asked.slice(before).filter((line) => /resolve|GET \/sfr/.test(line))).toEqual([]);
    expect(cache.names()).toContain("vicuna-7b/tokenizer.model");
    // The first precision still answers by the plain name.
    expect(modelPath(name, cache.cacheFolder)).toBe(cache.out);
    expect(modelPath(`${name}-int8`, cache.cacheFolder)).toBe(path);
    expect((await pulling(server, cache)).files).toBe(cache.files);
  });
});

describe("what is interrupted goes on", () => {
  test("where the connection broke", async () => {
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

  test("wherever it was stopped, and no byte is fetched twice", async () => {
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

  test("also when the process was killed", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const file = "pytorch_model-00001-of-00003.bin";
    const content = server.contents["Vision-CAIR/vicuna-7b"]?.get(file) ?? Buffer.alloc(0);
    let stall: () => void = fail;
    const stalled = new Promise<void>((resolve) => {
      stall = resolve;
    });
    server.intervene = (request, response) => {
      if (request.method !== "GET" || !request.url?.includes("00001")) return false;
      response.writeHead(206, { "content-range": `bytes 0-${content.length - 1}/${content.length}` });
      response.write(content.subarray(0, 100_000), stall);
      return true;
    };
    const root = join(import.meta.dirname, "..", "..", "..");
    const program = `
      const { pullReleased } = await import(${JSON.stringify(join(root, "src/models/import/pull-released.ts"))});
      const { releasedModels } = await import(${JSON.stringify(join(root, "src/models/import/released.ts"))});
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

  test("without any server, when all files are there", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const stop = new AbortController();
    const onStep = () => stop.abort(new Error("stopped"));
    await expect(pulling(server, cache, { onStep, signal: stop.signal })).rejects.toThrow("stopped");
    const nowhere = { hubUrl: "http://127.0.0.1:1", storageUrl: "http://127.0.0.1:1" };
    expect(await pulling(server, cache, nowhere)).toMatchObject({ path: cache.out, fetched: 0 });
  });
});

describe("what is wrong is told before anything is imported", () => {
  test.each([
    ["on the storage", "storage", "eva_vit_g.pth", "MD5"],
    ["by its LFS record", "Vision-CAIR/vicuna-7b", "pytorch_model-00002-of-00003.bin", "SHA-256"],
    ["by git's name of it", "Vision-CAIR/vicuna-7b", "config.json", "git object id"],
  ])("a file with another hash than the server tells, %s", async (_, repo, file, algorithm) => {
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
    [404, "/tree/", "Vision-CAIR/minigpt4", "is not there (any more). With --projection you can bring it yourself"],
    [401, "/tree/", "Vision-CAIR/vicuna-7b", "HF_TOKEN. With --llm you can bring it yourself"],
    [403, "/tree/", "Vision-CAIR/vicuna-7b", "if it asks you to accept a licence, do so"],
    [404, "eva_vit_g", "", "eva_vit_g.pth: the server answered 404 Not Found. With --vit you can bring it yourself"],
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

  test("a repository that has lost the file, or has no weights", async () => {
    const server = await releasedServer();
    server.contents["spaces/Vision-CAIR/minigpt4"]?.delete("prerained_minigpt4_7b.pth");
    await expect(pulling(server, fresh())).rejects.toThrow("minigpt4 has no prerained_minigpt4_7b.pth (any more)");
    const other = await releasedServer();
    for (const file of [...(other.contents["Vision-CAIR/vicuna-7b"]?.keys() ?? [])].filter(weights)) {
      other.contents["Vision-CAIR/vicuna-7b"]?.delete(file);
    }
    other.contents["Vision-CAIR/vicuna-7b"]?.delete("pytorch_model.bin.index.json");
    await expect(pulling(other, fresh())).rejects.toThrow("Vision-CAIR/vicuna-7b holds no weights");
  });

  test("a disk without room", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    server.intervene = (request, response) => {
      if (request.method !== "HEAD") return false;
      response.writeHead(200, { "content-length": 4e15 }).end();
      return true;
    };
    await expect(pulling(server, cache)).rejects.toThrow(/ GB are needed, but the disk has /);
    expect(server.asked.filter((line) => line.includes("bytes="))).toEqual([]);
    expect(existsSync(cache.out)).toBe(false);
  });

  test("a server that nobody answers at", async () => {
    const server = await releasedServer();
    await expect(pulling(server, fresh(), { storageUrl: "http://127.0.0.1:1" })).rejects.toThrow(
      /eva_vit_g.pth: fetch failed: /,
    );
  });

  test("a folder with something else in it", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const out = temporaryFolder();
    writeFileSync(join(out, "letter.txt"), "Dear");
    await expect(pulling(server, cache, { out })).rejects.toThrow("is not empty; choose another folder with --out");
    expect(server.asked).toEqual([]);
    expect(readFileSync(join(out, "letter.txt"), "utf8")).toBe("Dear");
  });
});

describe("parts that the user brings", () => {
  test("are neither fetched nor removed, and are not taken for others", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const llm = join(cache.cacheFolder, "my-vicuna");
    await cp(golden("llama-safetensors"), llm, { recursive: true });
    const { path } = await pulling(server, cache, { llm, projection: golden("minigpt4.pth") });
    expect(path).toBe(cache.out);
    expect(server.asked.filter((line) => !line.includes("LAVIS"))).toEqual([]);
    expect(allFiles(llm)).toEqual(allFiles(golden("llama-safetensors")));
    await expect(pulling(server, cache)).rejects.toThrow(
      /was made with another (projection|llm); choose another folder with --out/,
    );
    const before = server.asked.length;
    await pulling(server, cache, { llm, projection: golden("minigpt4.pth") });
    expect(server.asked.length).toBe(before);
  });

  test("all of them need no server", async () => {
    const cache = fresh();
    const { vit, qformer, llm, projection } = goldenImport("");
    const nowhere = { hubUrl: "http://127.0.0.1:1", storageUrl: "http://127.0.0.1:1" };
    const pulled = await pullReleased(model, {
      ...nowhere,
      ...heads,
      ...cache,
      out: undefined,
      vit,
      qformer,
      llm,
      projection,
    });
    expect(pulled).toMatchObject({ path: cache.out, fetched: 0 });
  });

  test("are not removed where they lie among the released files", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    await pulling(server, cache, { keepFiles: true });
    const [vit, llm] = [join(cache.files, "eva_vit_g.pth"), join(cache.files, "vicuna-7b")];
    const { files } = await pulling(server, cache, { vit, llm, precision: "fp16" });
    expect(files).toBe(cache.files);
    expect(readdirSync(cache.files).sort()).toEqual(["eva_vit_g.pth", "vicuna-7b"]);
    expect(readdirSync(llm)).toContain("pytorch_model-00001-of-00003.bin");
  });

  test("are looked at before anything is fetched", async () => {
    const server = await releasedServer();
    await expect(pulling(server, fresh(), { llm: "/nowhere/vicuna" })).rejects.toThrow("/nowhere/vicuna is not there");
    await expect(pulling(server, fresh(), { vit: golden("minigpt4.pth") })).rejects.toThrow("--vit needs");
    expect(server.asked).toEqual([]);
  });
});

describe("the user's token", () => {
  test("is not sent to a mirror", async () => {
    vi.stubEnv("HF_TOKEN", "hf_secret");
    const server = await releasedServer();
    await pulling(server, fresh());
    vi.unstubAllEnvs();
    expect(server.requests.length).toBeGreaterThan(10);
    expect(server.requests.filter((request) => request.headers.authorization !== undefined)).toEqual([]);
  });

  test("goes to the hub itself, and not to the storage", async () => {
    vi.stubEnv("HF_TOKEN", "hf_secret");
    const server = await releasedServer();
    const { fetch } = globalThis;
    const asked: [url: URL, token: string | null][] = [];
    // The addresses are the real ones; what is there is asked of the server on this machine.
    vi.stubGlobal("fetch", (address: string, init: RequestInit) => {
      const url = new URL(address);
      asked.push([url, new Headers(init.headers).get("authorization")]);
      return fetch(new URL(url.pathname + url.search, server.options.hubUrl), init);
    });
    const { cacheFolder, out } = fresh();
    await expect(pullReleased(model, { ...heads, cacheFolder })).resolves.toMatchObject({ path: out });
    vi.unstubAllGlobals();
    vi.unstubAllEnvs();
    const tokens = (host: string) => asked.filter(([url]) => url.host === host).map(([, token]) => token);
    expect(new Set(asked.map(([url]) => url.origin))).toEqual(
      new Set(["https://huggingface.co", "https://storage.googleapis.com"]),
    );
    expect(new Set(tokens("huggingface.co"))).toEqual(new Set(["Bearer hf_secret"]));
    expect(new Set(tokens("storage.googleapis.com"))).toEqual(new Set([null]));
  });
});

function allFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll("\\", "/"),
    )
    .sort();
}
