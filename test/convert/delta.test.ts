/** Vicuna's way of being published, with the small golden model in its place. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { applyDelta, isUnmergedDelta } from "../../src/convert/delta.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { openLlama } from "../../src/models/llama-folder.ts";
import { type NdArray, ndarray } from "../../src/tensor/array.ts";
import { float32ToFloat16 } from "../../src/tensor/float16.ts";
import { Random } from "../../src/tensor/random.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const base = join(goldenRoot, "mha", "llama-bin");
const delta = join(folder, "delta");
const tables = ["model.embed_tokens.weight", "lm_head.weight"];
let count = 0;
const fresh = () => join(folder, `out-${count++}`);

/** A difference in float16, with one row more in both tables. */
beforeAll(() => writeDelta(delta));

async function writeDelta(path: string, change: (arrays: Record<string, NdArray>) => void = () => {}): Promise<void> {
  await mkdir(path);
  await cp(join(base, "tokenizer.model"), join(path, "tokenizer.model"));
  const config = JSON.parse(readFileSync(join(base, "config.json"), "utf8"));
  writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, vocab_size: 801 }));
  const random = new Random(1);
  const checkpoint = await openCheckpoint(base);
  const arrays: Record<string, NdArray> = {};
  for (const { name, shape } of checkpoint.tensors.values()) {
    const [rows = 0, ...rest] = shape;
    const own = tables.includes(name) ? [rows + 1, ...rest] : shape;
    const size = own.reduce((product, dim) => product * dim, 1);
    arrays[name] = ndarray(
      "float16",
      own,
      float32ToFloat16(Float32Array.from({ length: size }, () => random.normal() / 100)),
    );
  }
  // Tables that old files hold; the base has none.
  arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = ndarray("float32", [8], new Float32Array(8));
  change(arrays);
  await writeSafetensors(join(path, "model.safetensors"), arrays);
  await checkpoint.close();
}

test("adds base and delta in float16; additional rows are those of the delta", async () => {
  const out = fresh();
  const merged = await applyDelta({ base, delta, out, maxShardBytes: 150_000 });
  expect(merged).toMatchObject({ tensors: 30, addedRows: 1 });
  expect(existsSync(join(out, "model.safetensors.index.json"))).toBe(true);
  const [sum, first, second] = [await openLlama(out), await openCheckpoint(base), await openCheckpoint(delta)];
  expect(sum.config.vocabSize).toBe(801);
  expect(sum.checkpoint.tensors.size).toBe(30);
  for (const name of first.tensors.keys()) {
    const [a, b] = [await first.readFloat32(name), await second.readFloat32(name)];
    const expected = float32ToFloat16(b.map((value, i) => value + (a[i] ?? 0)));
    expect(float32ToFloat16(await sum.checkpoint.readFloat32(name)), name).toEqual(expected);
    expect(sum.checkpoint.tensors.get(name)?.storedType).toBe("F16");
  }
  expect(await isUnmergedDelta(second)).toBe(true);
  expect(await isUnmergedDelta(sum.checkpoint)).toBe(false);
  for (const checkpoint of [sum.checkpoint, first, second]) await checkpoint.close();
});

test("an interrupted merge resumes", async () => {
  const out = fresh();
  const controller = new AbortController();
  const stopped = applyDelta({
    base,
    delta,
    out,
    maxShardBytes: 150_000,
    signal: controller.signal,
    onProgress: (_, done) => done > 200_000 && controller.abort(new Error("stopped")),
  });
  await expect(stopped).rejects.toThrow("stopped");
  expect(readdirSync(out).filter((file) => /-of-\d+\.safetensors$/.test(file)).length).toBeGreaterThan(0);
  let first: number | undefined;
  await applyDelta({
    base,
    delta,
    out,
    maxShardBytes: 150_000,
    onProgress: (_, done) => {
      first ??= done;
    },
  });
  expect(first).toBeGreaterThan(100_000);
  await expect(applyDelta({ base: delta, delta: base, out })).rejects.toThrow();
});

describe("errors are thrown before anything is written", () => {
  test.each<[string, { base?: string; delta?: string; change?: (arrays: Record<string, NdArray>) => void }, string]>([
    [
      "a complete model as delta",
      { delta: join(goldenRoot, "mha", "llama-safetensors") },
      "is a complete model, not a delta",
    ],
    ["a delta as base", { base: delta }, "contains delta weights, not a model"],
    ["another size", { base: join(goldenRoot, "gqa", "llama-bin") }, "are not a base model and its delta"],
    [
      "a tensor that is missing in the delta",
      { change: (arrays) => delete arrays["model.layers.1.mlp.up_proj.weight"] },
      "lacks model.layers.1.mlp.up_proj.weight",
    ],
    [
      "a tensor that the base lacks",
      { change: (arrays) => Object.assign(arrays, { other: ndarray("float32", [1], new Float32Array(1)) }) },
      "lacks other",
    ],
    [
      "another shape",
      {
        change: (arrays) =>
          Object.assign(arrays, { "model.norm.weight": ndarray("float32", [32], new Float32Array(32)) }),
      },
      '"model.norm.weight" is [64]',
    ],
  ])("%s", async (_, { base: from = base, delta: given, change }, message) => {
    const own = given ?? (change ? join(folder, `delta-${count++}`) : delta);
    if (change) await writeDelta(own, change);
    const out = fresh();
    await expect(applyDelta({ base: from, delta: own, out })).rejects.toThrow(message);
    expect(existsSync(out)).toBe(false);
  });
});
