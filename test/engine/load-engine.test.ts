import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { loadEngine } from "../../src/engine/load-engine.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { ImageEncoder } from "../../src/generation/image-encoder.ts";
import { LanguageModel } from "../../src/generation/language-model.ts";
import { headNames } from "../../src/models/contrastive-head.ts";
import { smallFiles } from "../../src/models/llama-folder.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { goldenRoot } from "../helpers/golden-set.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const llama = join(goldenRoot, "mha", "llama-safetensors");

afterEach(() => {
  vi.restoreAllMocks();
});

test("closes the image encoder if the language model fails to open", async () => {
  const llm = join(folder, "llm");
  mkdirSync(llm);
  for (const name of smallFiles) {
    try {
      copyFileSync(join(llama, name), join(llm, name));
    } catch {
      // Not every folder has all of them.
    }
  }
  await using weights = await openCheckpoint(llama);
  const table = "model.embed_tokens.weight";
  const embeddings = ndarray("float32", weights.tensors.get(table)?.shape ?? [], await weights.readFloat32(table));
  await writeSafetensors(join(llm, "model.safetensors"), { [table]: embeddings });
  const closed = vi.spyOn(ImageEncoder.prototype, "close");

  await expect(
    loadEngine(
      tinyModel(folder, "broken-llm", () => ({ llm })),
      "tiny",
    ),
  ).rejects.toThrow("model.layers.0");
  expect(closed).toHaveBeenCalledOnce();
});

test("closes both if the contrastive head does not match", async () => {
  const head = { [headNames.wordWeight]: ndarray("float32", [7], new Float32Array(7)) };
  await writeSafetensors(join(folder, "head.safetensors"), head);
  const path = tinyModel(folder, "broken-head", ({ weights }) => ({
    weights: { ...weights, contrastive: "../head.safetensors" },
  }));
  const closed = [vi.spyOn(ImageEncoder.prototype, "close"), vi.spyOn(LanguageModel.prototype, "close")];

  await expect(loadEngine(path, "tiny")).rejects.toThrow("head.safetensors");
  for (const close of closed) expect(close).toHaveBeenCalledOnce();
});

test("an engine is closed at the end of an `await using` block", async () => {
  const closed = vi.spyOn(LanguageModel.prototype, "close");
  {
    await using engine = await loadEngine(tinyModel(folder), "tiny");
    expect(engine.model.name).toBe("tiny");
  }
  expect(closed).toHaveBeenCalledOnce();
});
