import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { renameSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { GenerationRequest } from "../../src/engine/engine.ts";
import { loadEngine } from "../../src/engine/load-engine.ts";
import { ProcessEngine } from "../../src/engine/process-engine.ts";
import { EngineLostError } from "../../src/errors.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const image = join(goldenRoot, "mha/images/rgb.png");
const folder = tinyModel(temporaryFolder());
const question: GenerationRequest = { turns: "describe", images: [image], maxNewTokens: 12, temperature: 1, seed: 5 };
/** Its answer takes a second or two. */
const long: GenerationRequest = { turns: [{ role: "user", text: "Go on" }], images: [], maxNewTokens: 400, stop: [] };

let engine: ProcessEngine;
beforeAll(async () => {
  engine = await ProcessEngine.load(folder, "tiny");
});
afterAll(() => engine.close());

async function said(
  from: Pick<ProcessEngine, "generate">,
  asked: GenerationRequest,
  signal?: AbortSignal,
): Promise<string> {
  let text = "";
  for await (const event of from.generate(asked, signal)) if (event.kind === "text") text += event.text;
  return text;
}

/** The process, to kill it as the system does when memory runs out. */
const processOf = (owner: ProcessEngine) =>
  (owner as unknown as { process: { current: { child: ChildProcess } } }).process.current.child;

test("generates the same as an engine in this process, with files and with bytes", async () => {
  const local = await loadEngine(folder, "tiny");
  const expected = await said(local, question);
  expect(engine.model).toEqual(local.model);
  await local.close();
  expect(expected).not.toBe("");
  expect(await said(engine, question)).toBe(expected);
  const bytes = await readFile(image);
  expect(await said(engine, { ...question, images: [bytes] })).toBe(expected);
});

test("an invalid request keeps its error class and code", async () => {
  const refused = (asked: GenerationRequest) => expect(said(engine, asked)).rejects;
  await refused({ ...question, images: ["gone.png"] }).toMatchObject({ name: "RequestError", code: "invalid_image" });
  await refused({ ...question, images: [new Uint8Array(9)] }).toMatchObject({ code: "invalid_image" });
  await refused({ ...question, images: [] }).toMatchObject({
    code: "invalid_request",
    message: "The prompt has 1 images, but the request has 0",
  });
  await refused({ ...long, turns: [{ role: "user", text: "x".repeat(9000) }], overflow: "refuse" }).toMatchObject({
    code: "context_length_exceeded",
  });
  await expect(engine.embed([{ text: "a dog" }])).rejects.toMatchObject({ code: "invalid_request" });
});

test("the calling process is idle while the engine computes", async () => {
  const before = performance.eventLoopUtilization();
  await Promise.all([1, 2, 3, 4].map((seed) => said(engine, { ...long, temperature: 1, seed })));
  expect(performance.eventLoopUtilization(before).utilization).toBeLessThan(0.5);
});

test("a request whose signal is aborted ends immediately, and the engine serves the next one", async () => {
  const controller = new AbortController();
  const begun = said(engine, long, controller.signal);
  controller.abort(new Error("enough"));
  await expect(begun).rejects.toThrow("enough");
  for await (const event of engine.generate(long)) if (event.kind === "text") break;
  expect(await said(engine, question)).not.toBe("");
});

describe.each(["SIGKILL", "SIGSEGV"] as const)("an engine whose process exits by %s", (signal) => {
  test("fails its running requests, and a new process serves the next ones", async () => {
    const expected = await said(engine, question);
    const answers = [1, 2].map((seed) => said(engine, { ...long, temperature: 1, seed }));
    const failed = Promise.all(
      answers.map((answer) => expect(answer).rejects.toThrow("The model process exited unexpectedly: it was")),
    );
    for await (const _ of engine.generate(question)) break;
    processOf(engine).kill(signal);
    await failed;
    await expect(answers[0]).rejects.toThrow(signal);
    await expect(answers[0]).rejects.toBeInstanceOf(EngineLostError);
    expect(await said(engine, question)).toBe(expected);
  });
});

test("if the model cannot be loaded again, every request fails and the next one retries", async () => {
  const own = tinyModel(temporaryFolder());
  const other = await ProcessEngine.load(own, "tiny");
  const expected = await said(other, question);
  const config = join(own, "config.json");
  renameSync(config, `${config}.away`);
  processOf(other).kill("SIGKILL");
  // The first to ask may still meet the process as it ends.
  await expect(said(other, long)).rejects.toBeInstanceOf(EngineLostError);
  const asked = await Promise.allSettled([said(other, question), said(other, question)]);
  for (const result of asked) {
    expect(result).toMatchObject({ status: "rejected", reason: { name: "EngineLostError" } });
    expect(String(Object(result).reason)).toContain("cannot be restarted");
  }
  renameSync(`${config}.away`, config);
  // The process that was begun meanwhile may have looked before the file was back, or after.
  expect(await said(other, question).catch(() => said(other, question))).toBe(expected);
  await other.close();
});

test("an image's path is relative to the working directory of the calling process", async () => {
  const expected = await said(engine, question);
  const before = process.cwd();
  vi.spyOn(process, "cwd").mockReturnValue(dirname(image));
  try {
    expect(process.cwd()).not.toBe(before);
    expect(await said(engine, { ...question, images: [basename(image)] })).toBe(expected);
  } finally {
    vi.restoreAllMocks();
  }
});

test("the resident memory of the engine is known", async () => {
  await vi.waitFor(() => expect(engine.residentBytes).toBeGreaterThan(2e7));
});

test("an engine closed while it restarts fails waiting requests and exits", async () => {
  const other = await ProcessEngine.load(folder, "tiny");
  const broken = processOf(other);
  broken.kill("SIGKILL");
  await once(broken, "close");
  const starting = processOf(other);
  expect(starting).not.toBe(broken);
  const waiting = expect(said(other, question)).rejects.toThrow("The model is closed");
  await other.close();
  expect(starting.exitCode).toBeNull();
  await once(starting, "close");
  await waiting;
  await expect(said(other, question)).rejects.toThrow("The model is closed");
});

test("a closed engine refuses requests; closing twice has no effect", async () => {
  const other = await ProcessEngine.load(folder, "tiny");
  const answer = said(other, long);
  const failed = expect(answer).rejects.toMatchObject({ code: "model_closed" });
  for await (const _ of other.generate(question)) break;
  await other.close();
  await failed;
  await other.close();
  await expect(said(other, question)).rejects.toThrow("The model is closed. Load it again with MiniGPT4.load().");
});

test.each([0, 3, 11])(
  "the calling process can exit while a generation is running, %d ms after it began",
  (milliseconds) => {
    const script = join(import.meta.dirname, "../helpers/engine-exit.ts");
    const { status, stderr } = spawnSync(process.execPath, ["--import", "tsx", script, folder, `${milliseconds}`], {
      encoding: "utf8",
    });
    expect({ status, stderr }).toEqual({ status: 7, stderr: "" });
  },
);

test.skipIf(process.platform === "win32").each([
  ["SIGKILL", "it alone gets"],
  ["SIGINT", "a terminal sends to both,"],
] as const)("the engine's process exits with its parent, also by %s, which %s", async (signal, which) => {
  const script = join(import.meta.dirname, "../helpers/engine-exit.ts");
  const args = ["--import", "tsx", script, folder, "60000"];
  // In a group of its own, which is there as long as one of its processes is.
  const asking = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  await once(asking.stdout, "data");
  const group = -(asking.pid as number);
  process.kill(which.includes("both") ? group : -group, signal);
  expect(await once(asking, "exit")).toEqual([null, signal]);
  await vi.waitFor(() => expect(() => process.kill(group, 0)).toThrow("ESRCH"), { timeout: 5000 });
});

test.each([0, 2])("an engine that was not closed, after %d generations, keeps no process alive", (questions) => {
  const script = join(import.meta.dirname, "../helpers/engine-forget.ts");
  const { status, signal } = spawnSync(process.execPath, ["--import", "tsx", script, folder, `${questions}`], {
    timeout: 50_000,
  });
  expect({ status, signal }).toEqual({ status: 0, signal: null });
});

test("a folder that is not a model is refused with the reason", async () => {
  await expect(ProcessEngine.load(goldenRoot, "golden")).rejects.toThrow("it has no config.json");
});
