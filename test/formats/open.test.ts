import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/formats/index.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { fixture, golden, readAll, temporaryFolder, writeParts } from "../helpers/weight-files.ts";

const folder = temporaryFolder();

test.each(["mha", "gqa"])("%s: the sharded LLM is the same from .bin and from safetensors", async (set) => {
  const bin = await readAll(golden(`${set}/llama-bin`));
  const safe = await readAll(golden(`${set}/llama-safetensors`));
  expect(Object.keys(bin)).toContain("model.embed_tokens.weight");
  expect(safe).toEqual(bin);
});

test("a folder with both prefers safetensors", async () => {
  const both = join(folder, "both");
  mkdirSync(both);
  copyFileSync(fixture("nested.pth"), join(both, "pytorch_model.bin"));
  await writeSafetensors(join(both, "model.safetensors"), { w: ndarray("float32", [1], Float32Array.of(1)) });
  expect(Object.keys(await readAll(both))).toEqual(["w"]);
});

test.each(["mha/llama-bin", "mha/llama-safetensors", "mha/eva_vit.pth"])(
  "%s: `await using` closes the files at the end of the block",
  async (name) => {
    const open = async () => {
      await using checkpoint = await openCheckpoint(golden(name));
      const [first = ""] = checkpoint.tensors.keys();
      await checkpoint.readBytes(first);
      return { checkpoint, first };
    };
    const { checkpoint, first } = await open();
    await expect(checkpoint.readBytes(first)).rejects.toThrow();
  },
);

test("the format is recognized by the content, not the name", async () => {
  const cases = { gguf: "blocks.gguf", torch: "views-legacy.pth", safetensors: "views.safetensors" };
  for (const [format, name] of Object.entries(cases)) {
    const path = join(folder, `${format}.weights`);
    copyFileSync(fixture(name), path);
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.format).toBe(format);
    await checkpoint.close();
  }
});

test("a safetensors header whose length looks like a pickle is still one", async () => {
  const path = join(folder, "640.safetensors");
  const tensors = { w: ndarray("float32", [1], Float32Array.of(1)) };
  // 0x280 bytes of header: the file begins 80 02, as a pickle of protocol 2 does.
  await writeSafetensors(path, tensors, { padding: "x".repeat(0x280 - 8 - 80) });
  expect(Object.keys(await readAll(path))).toEqual(["w"]);
});

async function index(name: string, weight_map: Record<string, string>): Promise<string> {
  const home = join(folder, name);
  mkdirSync(home);
  await writeSafetensors(join(folder, "secret.safetensors"), { w: ndarray("float32", [1], Float32Array.of(1)) });
  await writeSafetensors(join(home, "a.safetensors"), { w: ndarray("float32", [1], Float32Array.of(2)) }, { by: "us" });
  const path = join(home, "model.safetensors.index.json");
  writeFileSync(path, JSON.stringify({ metadata: { total_size: 4 }, weight_map }));
  return path;
}

test("an index joins metadata and names", async () => {
  const path = await index("good", { w: "a.safetensors" });
  const checkpoint = await openCheckpoint(path);
  expect(checkpoint.metadata).toEqual({ total_size: 4, by: "us" });
  expect(await checkpoint.readFloat32("w")).toEqual(Float32Array.of(2));
  await expect(checkpoint.readFloat32("v")).rejects.toThrow(`${path}, tensor "v"`);
  await checkpoint.close();
});

test.each([
  ["missing", { w: "b.safetensors" }, "b.safetensors is missing"],
  ["parent", { w: "../secret.safetensors" }, "outside"],
  ["hidden-parent", { w: "x/../../secret.safetensors" }, "outside"],
  ["absolute", { w: "/etc/passwd" }, "outside"],
  ["tensor", { v: "a.safetensors" }, '"v"'],
  ["nothing", {}, "no tensors"],
  ["itself", { w: "model.safetensors.index.json" }, "not a weight file"],
  ["folder", { w: "." }, "not a regular file"],
  ["zero-byte", { w: "a\0.safetensors" }, "index.json"],
])("the error for a broken index names the cause: %s", async (name, map, reason) => {
  const path = await index(name, map);
  await expect(openCheckpoint(path)).rejects.toThrow(reason);
});

test.each([
  ["broken.index.json", "{", "JSON"],
  ["other.json", '{"weight_map": {"a": 1}}', "weight_map"],
  ["empty", "", "not a weight file"],
  ["text", "Hello, this is no weight file", "not a weight file"],
])("the error names a file that is not a weight file: %s", async (name, content, reason) => {
  const path = writeParts(join(folder, name), [content]);
  const opening = openCheckpoint(path);
  await expect(opening).rejects.toThrow(path);
  await expect(opening).rejects.toThrow(reason);
});

test("errors name a missing file and a folder without weights", async () => {
  await expect(openCheckpoint(join(folder, "nowhere"))).rejects.toThrow("nowhere");
  const empty = join(folder, "nothing-here");
  mkdirSync(empty);
  await expect(openCheckpoint(empty)).rejects.toThrow(/nothing-here.*model\.safetensors/);
});
