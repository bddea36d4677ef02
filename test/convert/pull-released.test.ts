/** The released MiniGPT-4 by its name: fetched from servers on this machine, imported, and asked. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { writeRandomLlama } from "../../bench/random-llama.ts";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import { modelPath } from "../../src/chat/models.ts";
import { importModel } from "../../src/convert/import.ts";
import { type PullPlan, pullReleased } from "../../src/convert/pull-released.ts";
import type { LlamaConfig } from "../../src/models/llama.ts";
import { golden, goldenImport } from "../helpers/golden-import.ts";
import { allFiles, areWeights, fresh, heads, model, name, pulling } from "../helpers/pulling.ts";
import { releasedServer } from "../helpers/released-server.ts";

const image = join(import.meta.dirname, "..", "..", "examples", "images", "cat.jpg");

describe("a pull", () => {
  test("creates the same folder as import, removes the files, and the model loads by its name", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const plans: PullPlan[] = [];
    const told: string[] = [];
    const pulled = await pulling(server, cache, {
      onPlan: (plan) => plans.push(plan),
      onFetch: ({ file, received, total }) => received === total && told.push(file),
    });
    expect(pulled).toMatchObject({ path: cache.out, files: undefined });
    const fetched = plans[0]?.files.map((file) => file.name) ?? [];
    expect(fetched.filter(areWeights)).toEqual([
      "eva_vit_g.pth",
      "blip2_pretrained_flant5xxl.pth",
      "prerained_minigpt4_7b.pth",
      ...[1, 2, 3].map((i) => `vicuna-7b/pytorch_model-0000${i}-of-00003.bin`),
    ]);
    expect(fetched.filter((file) => !areWeights(file)).sort()).toEqual([
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
    const answer = await loaded.describe(image, options);
    await loaded.close();
    const reference = await MiniGPT4.load(direct);
    expect(answer).toBe(await reference.describe(image, options));
    await reference.close();
    expect(answer.length).toBeGreaterThan(0);
  });

  test("sends no request for an existing folder; a damaged one is created again", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const { bytes } = await pulling(server, cache);
    const before = server.asked.length;
    expect(await pulling(server, cache)).toEqual({ path: cache.out, bytes, fetched: 0, files: undefined });
    expect(server.asked.length).toBe(before);
    writeFileSync(join(cache.out, "encoder.safetensors"), "damaged");
    await expect(pulling(server, cache)).resolves.toBeDefined();
    expect(statSync(join(cache.out, "encoder.safetensors")).size).toBeGreaterThan(100);
  });

  test("keepFiles keeps the files, and another quantization is made without downloading them again", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    expect((await pulling(server, cache, { keepFiles: true })).files).toBe(cache.files);
    const before = server.asked.length;
    const { path, fetched } = await pulling(server, cache, { keepFiles: true, quantization: "int8" });
    expect([path, fetched]).toEqual([join(cache.cacheFolder, "models", `${name}-int8`), 0]);
    expect(server.asked.slice(before).filter((line) => /resolve|GET \/sfr/.test(line))).toEqual([]);
    expect(cache.names()).toContain("vicuna-7b/tokenizer.model");
    // The first quantization still answers by the plain name.
    expect(modelPath(name, cache.cacheFolder)).toBe(cache.out);
    expect(modelPath(`${name}-int8`, cache.cacheFolder)).toBe(path);
    expect((await pulling(server, cache)).files).toBe(cache.files);
  });
});

/** Of the golden files' width. */
const tinyLlama: LlamaConfig = {
  vocabSize: 320,
  hiddenSize: 64,
  intermediateSize: 128,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 4,
  headDim: 16,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  maxPositionEmbeddings: 512,
  tieWordEmbeddings: false,
};

describe("parts that the user passes", () => {
  test("are neither downloaded nor removed, and other parts are told apart", async () => {
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

  test("a GGUF file is used unchanged, and the model loads by its name", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    const llm = join(cache.cacheFolder, "vicuna.Q4_0.gguf");
    await writeRandomLlama(llm, tinyLlama);
    await expect(pulling(server, cache, { llm, quantization: "int4" })).rejects.toThrow("omit --quantization");
    expect(server.asked).toEqual([]);
    const { path } = await pulling(server, cache, { llm });
    expect(path).toBe(join(cache.cacheFolder, "models", `${name}-gguf`));
    expect(modelPath(name, cache.cacheFolder)).toBe(path);
    expect(readFileSync(join(path, "vicuna.Q4_0.gguf")).equals(readFileSync(llm))).toBe(true);
    expect(server.asked.filter((line) => line.includes("vicuna"))).toEqual([]);
    const loaded = await MiniGPT4.load(`${name}-gguf`, { pull: { cacheFolder: cache.cacheFolder } });
    expect(typeof (await loaded.describe(image, { maxNewTokens: 3 }))).toBe("string");
    await loaded.close();
  });

  test("all four need no server", async () => {
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

  test("are not removed if they are in the download folder", async () => {
    const [server, cache] = [await releasedServer(), fresh()];
    await pulling(server, cache, { keepFiles: true });
    const [vit, llm] = [join(cache.files, "eva_vit_g.pth"), join(cache.files, "vicuna-7b")];
    const { files } = await pulling(server, cache, { vit, llm, quantization: "float16" });
    expect(files).toBe(cache.files);
    expect(readdirSync(cache.files).sort()).toEqual(["eva_vit_g.pth", "vicuna-7b"]);
    expect(readdirSync(llm)).toContain("pytorch_model-00001-of-00003.bin");
  });

  test("are checked before anything is downloaded", async () => {
    const server = await releasedServer();
    await expect(pulling(server, fresh(), { llm: "/nowhere/vicuna" })).rejects.toThrow(
      "/nowhere/vicuna does not exist",
    );
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

  test("is sent to the Hub, but not to the storage", async () => {
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
