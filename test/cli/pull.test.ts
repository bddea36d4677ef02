import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { planText } from "../../src/cli/pull.ts";
import { pullReleased } from "../../src/convert/pull-released.ts";
import { releasedModels } from "../../src/convert/released.ts";
import { image, minigpt4 } from "../helpers/cli-command.ts";
import { goldenImport } from "../helpers/golden-import.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const name = "minigpt4-7b";
const cache = temporaryFolder();
// The command line, the library and the model's process find the cache by this variable.
vi.stubEnv("MINIGPT4_CACHE", cache);
const released = releasedModels.get(name) ?? fail();
const { vit, qformer, projection, llm, vitHeads, qformerHeads } = goldenImport("");
const parts = { vit, projection, llm, ...(qformer && { qformer }) };
const heads = { vitHeads, qformerHeads };
const flags = Object.entries(parts).flatMap(([part, file]) => [`--${part}`, file]);

function fail(): never {
  throw new Error(`${name} should be known`);
}

test("a model that was not pulled: prints how to pull it", async () => {
  const { code, stderr } = await minigpt4(["describe", "--model", name, image("cat.jpg")]);
  expect([code, stderr]).toEqual([
    1,
    `error: ${name} is not in the cache (${cache}) yet. Fetch it with: minigpt4 pull ${name}\n`,
  ]);
});

test("a pulled model is found in the cache, and describes by its name", async () => {
  const { path } = await pullReleased(released, { ...parts, ...heads, cacheFolder: cache });
  const pulled = await minigpt4(["pull", name, ...flags]);
  expect(pulled).toEqual({
    code: 0,
    stdout: `${path}\n`,
    stderr: `Try it with: minigpt4 chat --model ${name} IMAGE\n`,
  });
  const described = await minigpt4(["describe", "--model", name, "--max-new-tokens", "4", image("cat.jpg")]);
  expect([described.code, described.stderr]).toEqual([0, ""]);
  expect(described.stdout.trim()).not.toBe("");
});

test("prints the path of a folder outside the cache", async () => {
  const out = join(temporaryFolder(), "mine");
  const { path, bytes } = await pullReleased(released, { ...parts, ...heads, cacheFolder: cache, out });
  const { stdout, stderr } = await minigpt4(["pull", name, ...flags, "--out", out, "--json"]);
  expect(JSON.parse(stdout)).toEqual({ name, path: out, bytes });
  expect([path, stderr]).toEqual([out, `Try it with: minigpt4 chat --model ${JSON.stringify(out)} IMAGE\n`]);
});

test("rejects options of released models for language models, and unknown names", async () => {
  const language = await minigpt4(["pull", "smollm2-135m-instruct", "--keep-files"]);
  expect([language.code, language.stderr]).toEqual([
    1,
    expect.stringContaining("--keep-files is an option of a released"),
  ]);
  const unknown = await minigpt4(["pull", "minigpt4-70b"]);
  expect([unknown.code, unknown.stderr]).toEqual([2, expect.stringContaining("minigpt4-7b, minigpt4-13b, smollm2")]);
});

test("the plan lists sizes, licences and what is cached", () => {
  const file = { url: "", digest: undefined, license: "MIT" };
  const files = [
    { ...file, part: "vit", name: "eva_vit_g.pth", bytes: 2_000_000_000 },
    { ...file, part: "llm", name: "vicuna-7b/config.json", bytes: 500 },
    { ...file, part: "llm", name: "vicuna-7b/pytorch_model.bin", bytes: 13_000_000_000 },
  ] as const;
  expect(planText(name, { out: "/models/m", files, missing: 14_500_000_500, folder: 6_700_000_000 })).toBe(
    `${name} needs 15 GB of downloads, 500 MB of it cached:
     2 GB  eva_vit_g.pth (MIT)
    13 GB  vicuna-7b, 2 files (MIT)
The model folder will take about 6.7 GB: /models/m`,
  );
});
