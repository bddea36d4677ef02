/** The perplexity of a text, against the same text read layer by layer. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { computeLayerwiseLoss } from "../../src/evaluation/layerwise-loss.ts";
import { perplexity } from "../../src/evaluation/perplexity.ts";
import { openLlama } from "../../src/models/llama-folder.ts";
import { goldenRoot } from "../helpers/golden-set.ts";

const text = "the quick brown fox jumps over the lazy dog and runs away from the old house";

test("windows are independent; a quantization changes the perplexity", async () => {
  const llm = await openLlama(join(goldenRoot, "gqa", "llama-safetensors"));
  const ids = llm.tokenizer.encode(text);
  const bos = llm.tokenizer.bosId === undefined ? [] : [llm.tokenizer.bosId];
  const window = Math.ceil(ids.length / 2) + bos.length;
  const half = window - bos.length;
  const parts = [ids.slice(0, half), ids.slice(half)].map((part) => [...bos, ...part]);
  const seen: number[] = [];
  const report = await perplexity(llm, text, { window, onProgress: (done) => seen.push(done) });
  expect(seen).toEqual([1, 2]);
  expect(report.tokens).toBe(parts.reduce((sum, part) => sum + part.length - 1, 0));
  const expected = await computeLayerwiseLoss(llm, parts);
  if (!("loss" in expected)) throw new Error("The golden model is whole");
  expect(report.loss).toBeCloseTo(expected.loss, 4);
  expect(report.perplexity).toBeCloseTo(Math.exp(report.loss), 6);

  const whole = await perplexity(llm, text);
  expect(whole.loss).not.toBeCloseTo(report.loss, 4);
  const rounded = await perplexity(llm, text, { quantization: "int4", window });
  expect(rounded.loss).not.toBeCloseTo(report.loss, 5);
  expect(rounded.loss).toBeCloseTo(report.loss, 0);
  await expect(perplexity(llm, "")).rejects.toThrow("too short");
  await llm.checkpoint.close();
});
