import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import { image, minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const short = ["--model", model, "--max-new-tokens", "8"];

/** A PNG of a hundred bytes whose header says 60000 x 60000. */
const pngOf60000Pixels = "iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAIAAAAPsOIVAAAADElEQVR4nGNgoD0AAABkAAGGZDw1AAAAAElFTkSuQmCC";

/** What is expected of an image, from the library. */
async function described(path: string, options = {}): Promise<string> {
  const loaded = await MiniGPT4.load(model);
  try {
    return await loaded.describe(path, { maxNewTokens: 8, ...options });
  } finally {
    await loaded.close();
  }
}

function inOneLine(text: string): string {
  return text.replace(/\s+/g, " ").replace(/\p{Cc}/gu, "");
}

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

test("one image: prints only its description", async () => {
  const cat = image("cat.jpg");
  const { code, stdout, stderr } = await minigpt4(["describe", cat, ...short]);
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: `${inOneLine(await described(cat))}\n`, stderr: "" });
});

test("reports each unreadable image, and describes the others", async () => {
  const bomb = Buffer.from(pngOf60000Pixels, "base64");
  const names = {
    missing: join(folder, "missing.jpg"),
    folder,
    garbage: write("garbage.jpg", "this is no image at all"),
    empty: write("empty.png", ""),
    truncated: write("truncated.jpg", readFileSync(image("cat.jpg")).subarray(0, 5000)),
    bomb: write("bomb.png", bomb),
  };
  const good = [image("cat.jpg"), image("coffee.jpg")] as const;
  const { code, stdout, stderr } = await minigpt4(["describe", good[0], ...Object.values(names), good[1], ...short]);
  expect(code).toBe(1);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.map((line) => line.slice(0, line.indexOf(": ")))).toEqual(good);
  const errors = stderr.trimEnd().split("\n");
  expect(errors).toEqual([
    `error: ${names.missing} cannot be read: no such file or folder`,
    `error: ${names.folder} is a folder, not an image`,
    expect.stringContaining(`error: ${names.garbage} is not an image`),
    `error: ${names.empty} is empty (0 bytes)`,
    expect.stringContaining(`error: ${names.truncated} is damaged or truncated`),
    expect.stringContaining(`error: ${names.bomb} is too large: 60000 x 60000 pixels`),
  ]);
});

test("--json: an object for each image, also for one that fails", async () => {
  const [cat, missing] = [image("cat.jpg"), join(folder, "missing.jpg")];
  const { code, stdout } = await minigpt4(["describe", cat, missing, "--json", ...short]);
  expect(code).toBe(1);
  const objects = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(objects).toEqual([
    { image: cat, description: await described(cat), seconds: expect.any(Number) },
    { image: missing, error: `${missing} cannot be read: no such file or folder` },
  ]);
  expect(objects[0].seconds).toBeGreaterThan(0);
});

test("sampling follows the options and the seed; beams search", async () => {
  const cat = image("cat.jpg");
  const drawn = await minigpt4(["describe", cat, "--top-p", "0.9", "--top-k", "50", "--seed", "7", ...short]);
  const expected = await described(cat, { temperature: 1, topP: 0.9, topK: 50, seed: 7 });
  expect(drawn.stdout).toBe(`${inOneLine(expected)}\n`);
  expect(expected).not.toBe(await described(cat));
  const searched = await minigpt4(["describe", cat, "--beams", "3", "--repetition-penalty", "1.2", ...short]);
  expect(searched.stdout).toBe(`${inOneLine(await described(cat, { numBeams: 3, repetitionPenalty: 1.2 }))}\n`);
});

test("a projection of another language model: names the file, the tensor and both shapes", async () => {
  const other = tinyModel(folder, "mismatched", (own) => ({
    weights: { ...own.weights, projection: own.weights.projection.replace("mha", "gqa") },
  }));
  const { code, stdout, stderr } = await minigpt4(["describe", image("cat.jpg"), "--model", other]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stderr).toContain(join(goldenRoot, "gqa", "minigpt4.pth"));
  expect(stderr).toContain('"llama_proj.weight" is [96, 60], but this network needs [64, 48]');
});

test("a missing model", async () => {
  const { code, stderr } = await minigpt4(["describe", image("cat.jpg"), "--model", "enormous"]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: No model "enormous".*\(nano\) or can be pulled \(minigpt4-7b, minigpt4-13b\)\n$/);
});

test("Ctrl-C exits with 130 between tokens", async () => {
  const cat = image("cat.jpg");
  const child = start(["describe", ...Array(200).fill(cat), "--model", model]);
  child.stdout?.once("data", () => child.kill("SIGINT"));
  const { code, stdout, stderr } = await outcome(child);
  expect({ code, stderr }).toEqual({ code: 130, stderr: "" });
  expect(stdout.split("\n").length).toBeLessThan(100);
});

test("a closed pipe is not a failure", async () => {
  const child = start(["describe", ...Array(50).fill(image("cat.jpg")), ...short]);
  child.stdout?.once("data", () => child.stdout?.destroy());
  const { code, stderr } = await outcome(child);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});
