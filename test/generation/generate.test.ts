import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type DecodingOptions, generate } from "../../src/generation/generate.ts";
import { KVCache } from "../../src/generation/kv-cache.ts";
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Random } from "../../src/tensor/random.ts";
import { byteTokenizer, tinyLanguageModel } from "../helpers/tiny-llama.ts";

const { vocabSize, eosId } = byteTokenizer;
const cache = () => new KVCache({ layers: 0, kvHeads: 0, headDim: 0 });

/** A language model that predicts these tokens, then the end-of-sequence token. */
function scripted(ids: readonly number[]): Pick<LanguageModel, "forward"> {
  let step = 0;
  return {
    async forward() {
      const logits = new Float32Array(vocabSize);
      logits[ids[step++] ?? eosId] = 10;
      return ndarray("float32", [1, vocabSize], logits);
    },
  };
}

async function pieces(model: Pick<LanguageModel, "forward">, options: Partial<DecodingOptions> = {}, seed = 0) {
  const settings = { maxNewTokens: 100, ...options };
  const found: string[] = [];
  for await (const piece of generate([1], settings, {
    model,
    tokenizer: byteTokenizer,
    cache: cache(),
    random: new Random(seed),
  }))
    found.push(piece);
  return found;
}

const texts = fc.string({ unit: "grapheme", maxLength: 12 });
const bytes = (text: string) => [...new TextEncoder().encode(text)];

describe("streamed text", () => {
  test("is the whole text, in pieces that do not split a character", async () => {
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const found = await pieces(scripted(bytes(text)), { maxNewTokens: 1000 });
        expect(found.join("")).toBe(text);
        for (const piece of found) {
          expect(piece).not.toBe("");
          // Half a surrogate pair would not survive this.
          expect(Buffer.from(piece).toString()).toBe(piece);
        }
      }),
    );
  });

  test("ends before a stop string, wherever the token boundaries are", async () => {
    await fc.assert(
      fc.asyncProperty(texts, texts, async (before, after) => {
        const found = await pieces(scripted(bytes(`${before}#é#${after}`)), { maxNewTokens: 1000, stop: ["#é#"] });
        expect(found.join("")).toBe(`${before}#é#`.slice(0, `${before}#é#`.indexOf("#é#")));
      }),
    );
  });

  test("an incomplete stop string is part of the text", async () => {
    expect((await pieces(scripted(bytes("a##")), { stop: ["###"] })).join("")).toBe("a##");
    expect((await pieces(scripted(bytes("a##")), { stop: ["###"], maxNewTokens: 2 })).join("")).toBe("a#");
  });

  test("a character cut by the token limit becomes one replacement character", async () => {
    expect((await pieces(scripted(bytes("x猫")), { maxNewTokens: 3 })).join("")).toBe("x\ufffd");
  });

  test("control tokens have no text", async () => {
    expect((await pieces(scripted([...bytes("a"), 256, ...bytes("b")]))).join("")).toBe("ab");
  });
});

test("repetition penalty counts generated tokens, not the prompt", async () => {
  const model = {
    async forward() {
      const logits = new Float32Array(vocabSize);
      logits[1] = 4;
      logits[65] = 3;
      logits[66] = 2.5;
      return ndarray("float32", [1, vocabSize], logits);
    },
  };
  const text = (await pieces(model, { maxNewTokens: 4, repetitionPenalty: 2 })).join("");
  expect(text).toBe("\u0001AB\u0001");
});

test("a real model: the same seed gives the same text, another seed another one; without temperature it is greedy", async () => {
  const model = await tinyLanguageModel(vocabSize);
  const run = async (options: Partial<DecodingOptions>, seed: number) => {
    const settings = { maxNewTokens: 30, ...options };
    let text = "";
    for await (const piece of generate([256, 70], settings, {
      model,
      tokenizer: byteTokenizer,
      cache: model.newCache(),
      random: new Random(seed),
    })) {
      text += piece;
    }
    return text;
  };
  const first = await run({ temperature: 1 }, 1);
  expect(await run({ temperature: 1 }, 1)).toBe(first);
  expect(await run({ temperature: 1 }, 2)).not.toBe(first);
  expect(await run({}, 1)).toBe(await run({}, 2));
  expect(await run({ temperature: 1, topK: 1 }, 7)).toBe(await run({}, 1));
  await model.close();
});

test("a cancelled generation stops before the next token", async () => {
  const controller = new AbortController();
  const found: string[] = [];
  const run = async () => {
    const options = { maxNewTokens: 10 };
    for await (const piece of generate([1], options, {
      model: scripted(bytes("abcdef")),
      signal: controller.signal,
      tokenizer: byteTokenizer,
      cache: cache(),
      random: new Random(0),
    })) {
      found.push(piece);
      if (piece === "c") controller.abort();
    }
  };
  await expect(run()).rejects.toThrow(/abort/i);
  expect(found.join("")).toBe("abc");
});
