/** Runs the examples with the commands in their first lines, on a tiny model. */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { MiniGPT4 } from "../src/index.ts";
import { tinyBlip2 } from "./helpers/blip2-tiny.ts";
import { image, outcome } from "./helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "./helpers/tiny-model.ts";

const root = join(import.meta.dirname, "..");
const folder = temporaryFolder();
const model = tinyModel(folder);
const cat = image("cat.jpg");

function start(name: string, ...args: readonly string[]) {
  return spawn(process.execPath, ["--import", "tsx", join("examples", `${name}.ts`), ...args, model], { cwd: root });
}

const run = (name: string, ...args: readonly string[]) => outcome(start(name, ...args));

async function described(options = {}): Promise<string> {
  await using loaded = await MiniGPT4.load(model);
  return await loaded.describe(cat, options);
}

test("describe-folder: one line per image; a damaged one is reported and skipped", async () => {
  const images = join(folder, "images");
  mkdirSync(images);
  writeFileSync(join(images, "cat.jpg"), readFileSync(cat));
  writeFileSync(join(images, "damaged.png"), "no image");
  writeFileSync(join(images, "notes.txt"), "no image either");
  const { code, stdout, stderr } = await run("describe-folder", images);
  expect(stderr).toMatch(/^.*damaged\.png is not an image.*\n$/);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.map((line) => JSON.parse(line))).toEqual([{ file: "cat.jpg", description: await described() }]);
  expect(code).toBe(0);
});

test("chat: three questions and their answers, then the history", async () => {
  const { code, stdout, stderr } = await run("chat", cat);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/\n\((?:stop|length): \d+ tokens, \d+ from the cache\)\n/);
  const history = stdout.slice(stdout.indexOf("History:"));
  expect(history.match(/^(user|assistant): /gm)).toEqual(Array(3).fill(["user: ", "assistant: "]).flat());
});

test("cancel and time-limit: a cancelled answer is not an error", async () => {
  const cancelled = start("cancel", cat);
  cancelled.stdout.once("data", () => cancelled.kill("SIGINT"));
  expect(await outcome(cancelled)).toMatchObject({ code: 0, stderr: "" });
  const { code, stdout, stderr } = await run("time-limit", cat, "1");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toContain("(not finished after 1 ms)");
});

test("sampling: the same seed gives the same description, another seed another one", async () => {
  const { code, stdout } = await run("sampling", cat);
  expect(code).toBe(0);
  for (const seed of [1, 2, 3]) {
    expect(stdout).toContain(await described({ temperature: 0.8, topP: 0.9, maxNewTokens: 60, seed }));
  }
  expect(stdout).toContain(`greedy: ${await described({ maxNewTokens: 60 })}`);
});

test("several-images: from a file and from memory", async () => {
  const { code, stdout, stderr } = await run("several-images", cat, image("coffee.jpg"));
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const description = await described();
  expect(stdout.startsWith(`${description}\n`)).toBe(true);
  expect(stdout.slice(description.length).trim()).not.toBe("");
});

test("find-images: by text, and then by the best image", async () => {
  const args = [join("examples", "find-images.ts"), dirname(cat), "a cat", tinyBlip2(folder)];
  const env = { ...process.env, MINIGPT4_CACHE: join(folder, "cache") };
  const { code, stdout, stderr } = await outcome(
    spawn(process.execPath, ["--import", "tsx", ...args], { cwd: root, env }),
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.trimEnd().split("\n");
  const best = lines[0]?.split(" ")[1];
  expect(lines[6]).toBe(`Similar to ${best}:`);
  expect(lines[7]).toMatch(/^(1\.000|0\.999) /);
  expect(lines[7]?.split(" ")[1]).toBe(best);
});

test("http-endpoint: describes an image, rejects other bodies, ends on Ctrl-C", async () => {
  const child = start("http-endpoint", "0");
  const ended = outcome(child);
  const printed = await new Promise<string>((resolve) => child.stdout.once("data", (text) => resolve(`${text}`)));
  const url = `http://127.0.0.1:${/port: (\d+)/.exec(printed)?.[1]}`;
  const post = async (body: Uint8Array<ArrayBuffer> | string) => {
    const response = await fetch(url, { method: "POST", body });
    return [response.status, await response.json()];
  };
  expect(await post(new Uint8Array(readFileSync(cat)))).toEqual([200, { description: await described() }]);
  expect(await post("no image")).toEqual([422, { error: expect.stringContaining("is not an image") }]);
  expect(await post("a".repeat(10_000_001))).toEqual([413, { error: expect.any(String) }]);
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 0, stderr: "" });
});

test("every example starts with the command that runs it, and imports the package by name", () => {
  const examples = readdirSync(join(root, "examples")).filter((name) => name.endsWith(".ts"));
  expect(examples.length).toBeGreaterThanOrEqual(7);
  for (const name of examples) {
    const source = readFileSync(join(root, "examples", name), "utf8");
    expect(source.split("\n").slice(0, 4).join("\n")).toContain(`npx tsx examples/${name}`);
    expect([...source.matchAll(/ from "(.*)"/g)].map(([, from]) => from)).toSatisfy((all: string[]) =>
      all.every((from) => from === "minigpt4" || from.startsWith("node:")),
    );
  }
});
