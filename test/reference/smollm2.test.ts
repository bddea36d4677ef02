/** The real SmolLM2-135M-Instruct: tokens of llama.cpp, scores and greedy answers of transformers. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createLanguageModel } from "../../src/generation/load.ts";
import { argmax, topKIndices } from "../../src/generation/sampling.ts";
import { pull } from "../../src/hub/pull.ts";
import { type OpenLlama, openLlama } from "../../src/models/llama-folder.ts";
import { skipWithout } from "../helpers/capabilities.ts";
import {
  expectDeviation,
  expectEqual,
  largestDifference,
  noteSkipped,
  relativeDifference,
} from "../helpers/deviations.ts";
import { goldenRoot } from "../helpers/golden-set.ts";

interface Case {
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly top10_ids?: readonly number[];
  readonly top10_logits?: readonly number[];
  readonly greedy_ids?: readonly number[];
  readonly greedy_text?: string;
}

const path = join(goldenRoot, "smollm2.json");
const cases: readonly Case[] = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).cases : [];
/** Scores are given with four digits after the point. */
const tolerance = 1e-3;
/** The weights are the file's own 4-bit blocks; activations are rounded to 8 bits in every product. */
const int4Tolerance = 8e-2;

describe.runIf(cases.length > 0)("SmolLM2-135M-Instruct", () => {
  let llama: OpenLlama | undefined;
  let missing = "";
  beforeAll(async () => {
    try {
      llama = await openLlama(await pull("smollm2-135m-instruct"));
    } catch (error) {
      missing = `the language model cannot be had: ${(error as Error).message}`;
      console.warn(`SmolLM2 is not tested, because ${missing}`);
      noteSkipped("smollm2", "the language model cannot be had");
    }
  }, 600_000);
  afterAll(() => llama?.checkpoint.close());

  test("tokens", (context) => {
    if (!llama) return skipWithout(context, "language-model", missing);
    const { tokenizer } = llama;
    const found = cases.map(({ prompt }) => tokenizer.encode(prompt));
    const expected = cases.map(({ ids }) => ids);
    expectEqual(`smollm2: tokens of ${cases.length} prompts`, found, expected);
  });

  test("logits and greedy answers in float32", { timeout: 120_000 }, async (context) => {
    if (!llama) return skipWithout(context, "language-model", missing);
    const { tokenizer, checkpoint, config } = llama;
    const model = await createLanguageModel(checkpoint, config);
    let largest = 0;
    const answers: { ids: number[]; text: string }[] = [];
    const scored = cases.filter(({ greedy_ids }) => greedy_ids !== undefined);
    for (const { ids, top10_ids = [], top10_logits = [], greedy_ids = [] } of scored) {
      const { data } = await model.forward([[...ids, ...greedy_ids.slice(0, -1)]], model.newCache(), "all");
      const rows = Array.from({ length: data.length / config.vocabSize }, (_, i) =>
        data.subarray(i * config.vocabSize, (i + 1) * config.vocabSize),
      );
      const afterPrompt = rows[ids.length - 1] as Float32Array;
      expect(topKIndices(afterPrompt, top10_ids.length)).toEqual(top10_ids);
      const found = top10_ids.map((id) => afterPrompt[id] as number);
      largest = Math.max(largest, largestDifference(found, top10_logits));
      // The most likely token at every place of the expected answer is the next one: greedy decoding would write it.
      const said = rows.slice(ids.length - 1).map(argmax);
      answers.push({ ids: said, text: tokenizer.decode(said) });
    }
    expectDeviation(`smollm2: ten largest logits of ${scored.length} prompts`, largest, tolerance);
    const expected = scored.map(({ greedy_ids, greedy_text }) => ({ ids: greedy_ids, text: greedy_text }));
    expectEqual(`smollm2: greedy answers to ${scored.length} prompts`, answers, expected);
    await model.close();
  });

  test("logits with 4-bit weights", { timeout: 120_000 }, async (context) => {
    if (!llama) return skipWithout(context, "language-model", missing);
    const model = await createLanguageModel(llama.checkpoint, llama.config, { quantization: "int4" });
    let largest = 0;
    const scored = cases.filter(({ top10_ids }) => top10_ids !== undefined);
    for (const { ids, top10_ids = [], top10_logits = [] } of scored) {
      const { data } = await model.forward([ids], model.newCache());
      const found = top10_ids.map((id) => data[id] as number);
      largest = Math.max(largest, relativeDifference(found, top10_logits));
    }
    expectDeviation("smollm2: ten largest logits with 4-bit weights (relative)", largest, int4Tolerance);
    await model.close();
  });
});
