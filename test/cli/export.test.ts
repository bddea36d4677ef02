import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../src/tensor/float16.ts";
import { minigpt4 } from "../helpers/cli-command.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const at = (name: string) => join(folder, name);
const golden = (name: string) => join(goldenRoot, "mha", name);

/** Stored type, shape and values of every tensor of a file whose name `wanted` fits. */
async function contents(path: string, wanted = /^/) {
  const file = await openCheckpoint(path);
  try {
    const all: Record<string, unknown> = {};
    for (const { name, storedType, shape } of file.tensors.values()) {
      if (wanted.test(name)) all[name] = [storedType, shape, await file.readFloat32(name)];
    }
    return all;
  } finally {
    await file.close();
  }
}

async function safetensors(name: string, tensors: Record<string, NdArray>): Promise<string> {
  await writeSafetensors(at(name), tensors);
  return at(name);
}

const wide = Float32Array.of(0.1, -2.5, 70000, 1e-9);
const half = float32ToFloat16(Float32Array.of(0.1, -2.5));
const mixed = await safetensors("mixed.safetensors", {
  "llama_proj.weight": ndarray("float16", [1, 2], half),
  "llama_proj.bias": ndarray("float32", [4], wide),
  "bert.position_ids": ndarray("int64", [2], BigInt64Array.of(0n, 2n ** 53n + 1n)),
});

test("exports the projection of a model folder as .pth, and reports as JSON", async () => {
  const output = at("new/projection.pth");
  const { code, stdout, stderr } = await minigpt4(["export", tinyModel(folder), "-o", output, "--json"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(stdout)).toEqual({
    path: output,
    tensors: [
      { name: "llama_proj.weight", dtype: "float32", shape: [64, 48], bytes: 12288 },
      { name: "llama_proj.bias", dtype: "float32", shape: [64], bytes: 256 },
    ],
    parameters: 3136,
    bytes: 12544,
  });
  expect(await contents(output)).toEqual(await contents(golden("minigpt4.pth")));
});

test("exports the folder of a run, and reports as text", async () => {
  mkdirSync(at("run"));
  const bias = ndarray("float16", [2], half);
  await writeSafetensors(at("run/projection.safetensors"), { "llama_proj.bias": bias, other: bias });
  const { stdout } = await minigpt4(["export", at("run"), "-o", at("run.pth")]);
  expect(stdout).toBe(`${at("run.pth")}\n  llama_proj.bias  float32  [2]  8 B\n1 tensors, 2 parameters, 8 B\n`);
  expect(await contents(at("run.pth"))).toEqual({ "llama_proj.bias": ["float32", [2], float16ToFloat32(half)] });
});

test("safetensors keep stored types; .pth has float32 and exact integers", async () => {
  await minigpt4(["export", mixed, "-o", at("same.safetensors")]);
  expect(await contents(at("same.safetensors"))).toEqual(await contents(mixed));
  await minigpt4(["export", mixed, "-o", at("mixed.pth")]);
  const file = await openCheckpoint(at("mixed.pth"));
  expect(Object.fromEntries([...file.tensors.values()].map(({ name, storedType }) => [name, storedType]))).toEqual({
    "llama_proj.weight": "float32",
    "llama_proj.bias": "float32",
    "bert.position_ids": "int64",
  });
  const ids = Buffer.from(await file.readBytes("bert.position_ids"));
  expect(ids.readBigInt64LE(8)).toBe(2n ** 53n + 1n);
  await file.close();
});

test("--only takes several prefixes; --dtype float16 rounds", async () => {
  const output = at("several.safetensors");
  const only = ["--only", "llama_proj", "--only", "query_tokens"];
  await minigpt4(["export", tinyModel(folder, "parts"), "-o", output, ...only, "--dtype", "float16"]);
  const found = await contents(output);
  expect(Object.keys(found).sort()).toEqual(["llama_proj.bias", "llama_proj.weight", "query_tokens"]);
  const { query_tokens: before } = await contents(golden("blip2_qformer.pth"));
  const [, shape, values] = before as [string, number[], Float32Array];
  expect(found.query_tokens).toEqual(["F16", shape, float16ToFloat32(float32ToFloat16(values))]);
});

test("quantized blocks are converted to the requested type", async () => {
  const gguf = join(import.meta.dirname, "..", "formats", "fixtures", "blocks.gguf");
  const args = ["export", gguf, "--only", "Q4_0", "--only", "Q8_0", "-o"];
  const { code, stderr } = await minigpt4([...args, at("blocks.safetensors")]);
  expect(code).toBe(1);
  expect(stderr).toContain('tensor "Q4_0" is stored as Q4_0, which cannot be copied; pass --dtype to convert it\n');
  await minigpt4([...args, at("blocks.pth")]);
  const [found, stored] = [await contents(at("blocks.pth")), await contents(gguf, /^Q[48]_0/)];
  const asFloat32 = (name: string) => ["float32", ...(stored[name] as unknown[]).slice(1)];
  expect(found).toEqual({ Q4_0: asFloat32("Q4_0"), Q8_0: asFloat32("Q8_0") });
});

test("nothing is overwritten without --force", async () => {
  writeFileSync(at("there.pth"), "before");
  const refused = await minigpt4(["export", mixed, "-o", at("there.pth")]);
  expect(refused).toEqual({
    code: 1,
    stdout: "",
    stderr: `error: ${at("there.pth")} already exists; pass --force to overwrite it\n`,
  });
  expect(readFileSync(at("there.pth"), "utf8")).toBe("before");
  expect((await minigpt4(["export", mixed, "-o", at("there.pth"), "--force"])).code).toBe(0);
  expect(Object.keys(await contents(at("there.pth")))).toHaveLength(3);
});

test.each([
  [
    "an unknown extension",
    ["export", mixed, "-o", at("x.onnx")],
    2,
    "Expected a file name that ends in .pth or .safetensors",
  ],
  ["a name that is not there", ["export", mixed, "-o", at("x.pth"), "--only", "nope"], 1, 'starts with "nope"'],
  ["a value too large for float16", ["export", mixed, "-o", at("x.pth"), "--dtype", "float16"], 1, "llama_proj.bias"],
  ["no file", ["export", at("missing"), "-o", at("x.pth")], 1, `${at("missing")}: no such file or folder`],
])("%s is reported, and nothing is written", async (_, args, expectedCode, message) => {
  const { code, stderr } = await minigpt4(args);
  expect(code).toBe(expectedCode);
  expect(stderr).toContain(message);
  expect(existsSync(at("x.pth"))).toBe(false);
  expect(readdirSync(folder).filter((name) => name.includes("partial"))).toEqual([]);
});
