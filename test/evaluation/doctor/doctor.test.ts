/** A model folder with one thing wrong at a time: the doctor finds it, and nothing else. */
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { importModel } from "../../../src/convert/import.ts";
import { diagnose } from "../../../src/evaluation/doctor/doctor.ts";
import { computeLayerwiseLoss } from "../../../src/evaluation/layerwise-loss.ts";
import { openCheckpoint } from "../../../src/formats/open.ts";
import { writeSafetensors } from "../../../src/formats/safetensors.ts";
import { createLanguageModel } from "../../../src/generation/load.ts";
import { openLlama } from "../../../src/models/llama-folder.ts";
import { type NdArray, ndarray } from "../../../src/tensor/array.ts";
import { minigpt4 } from "../../helpers/cli-command.ts";
import { golden, goldenImport } from "../../helpers/golden-import.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
const sound = join(folder, "sound");
let count = 0;

beforeAll(() => importModel(goldenImport(sound, { quantization: "float16" })));

/** A copy of the sound folder, changed; `import.json` goes where the change is not to be known by its checksum. */
async function copy(change: (path: string) => unknown, keepsJournal = false): Promise<string> {
  const path = join(folder, `copy-${count++}`);
  await cp(sound, path, { recursive: true });
  if (!keepsJournal) rmSync(join(path, "import.json"));
  await change(path);
  return path;
}

const llmWeights = (path: string) => join(path, "llm", "model.safetensors");

async function rewrite(
  file: string,
  change: (values: Float32Array, name: string) => Float32Array | undefined,
): Promise<void> {
  const checkpoint = await openCheckpoint(file);
  const arrays: Record<string, NdArray> = {};
  for (const { name, shape } of checkpoint.tensors.values()) {
    const values = change(await checkpoint.readFloat32(name), name);
    if (values) arrays[name] = ndarray("float32", shape, values);
  }
  await checkpoint.close();
  await writeSafetensors(file, arrays);
}

function editJson(file: string, change: (json: Record<string, unknown>) => void): void {
  const json = JSON.parse(readFileSync(file, "utf8"));
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

/** Random weights are noise, which is what the language check is for; elsewhere it is left out. */
const examined = async (path: string) => {
  const { findings, healthy } = await diagnose(path, { skip: ["language"] });
  const faults = findings.filter(({ kind }) => kind === "fault");
  expect(healthy).toBe(faults.length === 0);
  return faults.map(({ check, what }) => `${check}: ${what}`);
};

test("a sound folder has no faults; random weights are noise", async () => {
  expect(await examined(sound)).toEqual([]);
  const counts = new Map<string, [done: number, total: number]>();
  const { healthy, findings, perplexity } = await diagnose(sound, {
    onProgress: (check, done, total) => counts.set(check, [done, total]),
  });
  // What was counted is all that there is, of the files also the copy for prompts.
  for (const check of ["files", "values", "language"]) {
    const [done = 0, total = 0] = counts.get(check) ?? [];
    expect(done, check).toBe(total);
    expect(total, check).toBeGreaterThan(0);
  }
  expect(healthy).toBe(false);
  expect(findings.filter(({ kind }) => kind === "fault").map(({ check }) => check)).toEqual(["language"]);
  expect(perplexity).toBeGreaterThan(500);
});

test("the layerwise loss equals that of the whole model", async () => {
  const llm = await openLlama(golden("llama-bin"));
  const texts = ["The sun rises.", "A longer text with more words in it."].map((text) =>
    llm.tokenizer.encode(text, { bos: true }),
  );
  const found = await computeLayerwiseLoss(llm, texts);
  const model = await createLanguageModel(llm.checkpoint, llm.config);
  const losses: number[] = [];
  for (const ids of texts) {
    const { data } = await model.forward([ids], model.newCache(), "all");
    ids.slice(1).forEach((id, i) => {
      const row = data.subarray(i * llm.config.vocabSize, (i + 1) * llm.config.vocabSize);
      losses.push(Math.log(row.reduce((sum, score) => sum + Math.exp(score), 0)) - (row[id] as number));
    });
  }
  await model.close();
  await llm.checkpoint.close();
  expect("loss" in found && found.loss).toBeCloseTo(losses.reduce((a, b) => a + b) / losses.length, 4);
});

describe("faults", () => {
  test.each<[string, (path: string) => unknown, RegExp]>([
    ["no config.json", (path) => rmSync(join(path, "config.json")), /^config: .*no config\.json/],
    ["a config that is no JSON", (path) => writeFileSync(join(path, "config.json"), "{"), /^config: .*not valid JSON/],
    [
      "a config of something else",
      (path) => writeFileSync(join(path, "config.json"), "{}"),
      /^config: .*does not describe a MiniGPT-4/,
    ],
    [
      "a missing file",
      (path) => rmSync(join(path, "encoder.safetensors")),
      /^files: .*encoder\.safetensors is missing/,
    ],
    [
      "a truncated file",
      (path) => truncateSync(join(path, "qformer.safetensors"), 5000),
      /^files: .*qformer\.safetensors.*truncated/,
    ],
    ["no language model", (path) => rmSync(join(path, "llm"), { recursive: true }), /^files: /],
    ["no tokenizer", (path) => rmSync(join(path, "llm", "tokenizer.model")), /^tokenizer: .*has no tokenizer/],
    [
      "another vocabulary",
      (path) =>
        cp(golden("../gqa/llama-bin/tokenizer.model"), join(path, "llm", "tokenizer.model")).then(() =>
          rewriteTables(path),
        ),
      /^tokenizer: The tokenizer has 800 tokens, but the language model has only 700/,
    ],
    [
      "another end of a text",
      (path) => editJson(join(path, "llm", "config.json"), (json) => Object.assign(json, { eos_token_id: 5 })),
      /^tokenizer: .*eos_token_id 5, but the tokenizer has 2/,
    ],
    [
      "another template",
      (path) => editJson(join(path, "config.json"), (json) => Object.assign(json, { prompt_template: "chatml" })),
      /^tokenizer: .*chatml.*im_start/,
    ],
    [
      "a missing tensor",
      (path) => rewrite(llmWeights(path), (values, name) => (name.includes("2.mlp.up_proj") ? undefined : values)),
      /^dimensions: .*has no tensor "model\.layers\.2\.mlp\.up_proj\.weight"/,
    ],
    [
      "other dimensions",
      (path) => editJson(join(path, "llm", "config.json"), (json) => Object.assign(json, { intermediate_size: 200 })),
      /^dimensions: .*another model size/,
    ],
    [
      "values that are none",
      (path) =>
        rewrite(join(path, "encoder.safetensors"), (values, name) =>
          name.includes("1.mlp.fc1.weight") ? values.fill(Number.NaN, 7, 9) : values,
        ),
      /^values: .*blocks\.1\.mlp\.fc1\.weight": 2 values/,
    ],
    [
      "a hole in a file",
      (path) =>
        rewrite(llmWeights(path), (values, name) => (name.includes("0.self_attn.q_proj") ? values.fill(0) : values)),
      /^values: .*all 4096 values are zero/,
    ],
    [
      "a difference",
      (path) => rewrite(llmWeights(path), (values) => values.map((value) => value / 100)),
      /^delta: .*contains delta weights/,
    ],
  ])("%s", async (_, change, expected) => {
    const faults = await examined(await copy(change));
    expect(faults.length).toBeGreaterThan(0);
    expect(
      faults.find((fault) => expected.test(fault)),
      faults.join("\n"),
    ).toBeDefined();
  });

  test("a projection for 13B with a smaller language model", async () => {
    const path = await copy((own) =>
      writeSafetensors(join(own, "projection.safetensors"), {
        "llama_proj.weight": ndarray("float16", [5120, 48], new Uint16Array(5120 * 48)),
        "llama_proj.bias": ndarray("float16", [5120], new Uint16Array(5120)),
      }),
    );
    expect(await examined(path)).toEqual([
      expect.stringMatching(/projection\.safetensors and .*llm do not match: .*5120 \(13B\).*width 64/),
    ]);
  });

  test("a file that has changed since it was written, and an unfinished import", async () => {
    const changed = await copy((path) => {
      const file = join(path, "projection.safetensors");
      const bytes = readFileSync(file);
      bytes[bytes.length - 2] = (bytes.at(-2) ?? 0) ^ 1;
      writeFileSync(file, bytes);
    }, true);
    expect(await examined(changed)).toEqual([expect.stringContaining("projection.safetensors has changed")]);
    const unfinished = await copy((path) => rmSync(join(path, "config.json")), true);
    expect(await examined(unfinished)).toEqual([expect.stringContaining("unfinished import")]);
  });

  test("reports the layer whose output is not finite", async () => {
    const path = await copy((own) =>
      rewrite(llmWeights(own), (values, name) => (name.includes("1.mlp.down_proj") ? values.fill(3e38) : values)),
    );
    const { findings } = await diagnose(path, { skip: ["images"] });
    expect(findings).toContainEqual(
      expect.objectContaining({ check: "language", what: expect.stringContaining("layer 1 of 3") }),
    );
  });
});

test("the command's output and exit code", async () => {
  const fine = await minigpt4(["doctor", sound, "--skip", "language"]);
  expect(fine).toMatchObject({ code: 0, stdout: expect.stringContaining("no faults found") });
  const { code, stdout } = await minigpt4(["doctor", join(folder, "nowhere"), "--json"]);
  expect(code).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({ healthy: false, findings: [{ check: "config", kind: "fault" }] });
});

/** Tables of 700 rows. */
async function rewriteTables(path: string): Promise<void> {
  const checkpoint = await openCheckpoint(llmWeights(path));
  const arrays: Record<string, NdArray> = {};
  for (const { name, shape } of checkpoint.tensors.values()) {
    const values = await checkpoint.readFloat32(name);
    const isTable = /embed_tokens|lm_head/.test(name);
    arrays[name] = isTable
      ? ndarray("float32", [700, 64], values.subarray(0, 700 * 64))
      : ndarray("float32", shape, values);
  }
  await checkpoint.close();
  await writeSafetensors(llmWeights(path), arrays);
  editJson(join(path, "llm", "config.json"), (json) => Object.assign(json, { vocab_size: 700 }));
}
