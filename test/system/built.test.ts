/** The package as it is built: its threads and processes are started from files whose names nothing but running them checks. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { MiniGPT4 } from "../../src/chat/minigpt4.ts";
import { originalView, startDecoder } from "../../src/data/decoder.ts";
import { CLIP } from "../../src/images/preprocess.ts";
import { image } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const root = join(import.meta.dirname, "..", "..");
// Inside of the project, where its dependencies are found.
const folder = mkdtempSync(join(root, ".built-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(() => {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [compiler, "-p", "tsconfig.build.json", "--outDir", folder], { cwd: root });
}, 120_000);

test("decodes images on threads, with the same result as the sources", async () => {
  const built = await import(pathToFileURL(join(folder, "data", "decoder.js")).href);
  const task = {
    name: "cat.jpg",
    bytes: readFileSync(image("cat.jpg")),
    view: originalView,
    spec: { ...CLIP, size: 64 },
  };
  const pixels: Float32Array[] = [];
  for (const start of [startDecoder, built.startDecoder as typeof startDecoder]) {
    const decoder = start(1);
    pixels.push(await decoder.decode(task));
    await decoder.close();
  }
  expect(pixels[1]).toEqual(pixels[0]);
});

test("describes an image in the engine's process, with the same result as the sources", async () => {
  const built = await import(pathToFileURL(join(folder, "index.js")).href);
  const path = tinyModel(temporaryFolder());
  const descriptions: string[] = [];
  for (const own of [MiniGPT4, built.MiniGPT4 as typeof MiniGPT4]) {
    const model = await own.load(path);
    descriptions.push(await model.describe(image("cat.jpg"), { maxNewTokens: 12, temperature: 1, seed: 5 }));
    await model.close();
  }
  expect(descriptions[0]).not.toBe("");
  expect(descriptions[1]).toBe(descriptions[0]);
});
