/** Prompts that are read through the layers in bytes, against the same model in float32 and without them. */
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { importModel } from "../../src/convert/import.ts";
import type { LanguageModel, Position } from "../../src/generation/language-model.ts";
import { createLanguageModel, openLanguageModel } from "../../src/generation/load.ts";
import { type OpenLlama, openLlama } from "../../src/models/llama-folder.ts";
import { supportsMappedInt8 } from "../../src/runtime/session.ts";
import { Random } from "../../src/tensor/random.ts";
import { isMissing } from "../helpers/capabilities.ts";
import { relativeDifference } from "../helpers/deviations.ts";
import { golden, goldenImport } from "../helpers/golden-import.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
const withIt = join(folder, "with");
const without = join(folder, "without");
const random = new Random(3);

/** Text with image tokens in it. */
function prompt({ hiddenSize, vocabSize }: OpenLlama["config"], length: number): Position[] {
  return Array.from({ length }, (_, i) =>
    i % 7 === 3
      ? Float32Array.from({ length: hiddenSize }, () => 0.1 * random.normal())
      : Math.floor(random.uniform() * vocabSize),
  );
}

async function using<T>(path: string, use: (model: LanguageModel, llm: OpenLlama) => Promise<T>): Promise<T> {
  const llm = await openLlama(join(path, "llm"));
  const model = await openLanguageModel(llm, path, { quantization: "native", threads: 1, device: "cpu" });
  try {
    return await use(model, llm);
  } finally {
    await model.close();
    await llm.checkpoint.close();
  }
}

describe.skipIf(isMissing("int8", supportsMappedInt8("cpu")))("a language model with its layers in bytes", () => {
  beforeAll(async () => {
    await importModel(goldenImport(withIt, { prefill: true }));
    cpSync(withIt, without, { recursive: true });
    rmSync(join(without, "llm", "prefill"), { recursive: true });
  });

  test("the logits of a prompt are closer to float32 than with 4-bit blocks", async () => {
    const exact = await openLlama(golden("llama-bin"));
    const reference = await createLanguageModel(exact.checkpoint, exact.config, { threads: 1 });
    const sequence = prompt(exact.config, 150);
    const scoresOf = async (model: LanguageModel) => {
      const cache = model.newCache();
      await model.prefill(sequence, cache);
      expect(cache.length).toBe(150);
      const { "keys.1": keys, "values.1": values } = cache.feeds();
      return { keys: keys?.data as Float32Array, values: values?.data as Float32Array };
    };
    const expected = await scoresOf(reference);
    const read = await using(withIt, scoresOf);
    const coarse = await using(without, scoresOf);
    // Keys and values of the second layer: what the layers in bytes computed, and what blocks of 4 bits did.
    for (const part of ["keys", "values"] as const) {
      expect(relativeDifference(read[part], expected[part])).toBeLessThan(0.06);
      expect(relativeDifference(coarse[part], expected[part])).toBeGreaterThan(0.15);
    }
    await reference.close();
    await exact.checkpoint.close();
  });

  test("a prompt in chunks, after earlier positions, gives the same logits", async () => {
    await using(withIt, async (model, { config }) => {
      const sequence = prompt(config, 230);
      const whole = model.newCache();
      const expected = await model.forward([sequence], whole);
      const pieces = model.newCache();
      await model.prefill(sequence.slice(0, 10), pieces);
      await model.prefill(sequence.slice(10, 140), pieces);
      const found = await model.forward([sequence.slice(140)], pieces);
      expect(pieces.length).toBe(230);
      // The first ten were read in blocks of 4 bits, being few.
      expect(relativeDifference(found.data, expected.data)).toBeLessThan(0.1);
      const same = model.newCache();
      await model.prefill(sequence.slice(0, 100), same);
      const scores = await model.forward([sequence.slice(100)], same);
      expect(relativeDifference(scores.data, expected.data)).toBeLessThan(0.02);
    });
  });

  test("short prompts, and batches, use the decoder graph", async () => {
    await using(withIt, async (model, { config }) => {
      await using(without, async (other) => {
        const short = prompt(config, 20);
        const few = [await model.forward([short], model.newCache()), await other.forward([short], other.newCache())];
        expect(few[0]?.data).toEqual(few[1]?.data);
        const pair = [prompt(config, 90), prompt(config, 90)];
        const both = [await model.forward(pair, model.newCache(2)), await other.forward(pair, other.newCache(2))];
        expect(both[0]?.data).toEqual(both[1]?.data);
      });
    });
  });

  test("leaves no files in the folder, and is not used with another quantization", async () => {
    const llm = await openLlama(join(withIt, "llm"));
    const model = await openLanguageModel(llm, withIt, { quantization: "float32", threads: 1, device: "cpu" });
    const plain = await createLanguageModel(llm.checkpoint, llm.config, { threads: 1, device: "cpu" });
    const sequence = prompt(llm.config, 120);
    const [a, b] = [
      await model.forward([sequence], model.newCache()),
      await plain.forward([sequence], plain.newCache()),
    ];
    expect(a.data).toEqual(b.data);
    for (const each of [model, plain]) await each.close();
    await llm.checkpoint.close();
  });
});
