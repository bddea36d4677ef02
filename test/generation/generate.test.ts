import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type GenerateOptions, generate } from "../../src/generation/generate.ts";
import { KVCache } from "../../src/generation/kv-cache.ts";
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Random } from "../../src/tensor/random.ts";
import { byteTokenizer, tinyLanguageModel } from "../helpers/tiny-llama.ts";

const { vocabSize, eosId } = byteTokenizer;
const cache = () => new KVCache({ layers: 0, kvHeads: 0, headDim: 0 });

/** A language model that says these tokens, and then ends. */
function scripted(ids: readonly number[]): Pick<LanguageModel, "forward"> {
  let said = 0;
  return {
    async forward() {
      const scores = new Float32Array(vocabSize);
      scores[ids[said++] ?? eosId] = 10;
      return ndarray("float32", [1, vocabSize], scores);
    },
  };
}

async function pieces(model: Pick<LanguageModel, "forward">, options: Partial<GenerateOptions> = {}, seed = 0) {
  const settings = { maxNewTokens: 100, ...options };
  const found: string[] = [];
  for await (const piece of generate(model, byteTokenizer, [1], cache(), settings, new Random(seed))) found.push(piece);
  return found;
}

const texts = fc.string({ unit: "grapheme", maxLength: 12 });
const bytes = (text: string) => [...new TextEncoder().encode(text)];

describe("a stream of text", () => {
  test("is the whole text, in pieces that split no character", async () => {
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

  test("ends before a stop string, wherever the borders of tokens are", async () => {
    await fc.assert(
      fc.asyncProperty(texts, texts, async (before, after) => {
        const found = await pieces(scripted(bytes(`${before}#é#${after}`)), { maxNewTokens: 1000, stop: ["#é#"] });
        expect(found.join("")).toBe(`${before}#é#`.slice(0, `${before}#é#`.indexOf("#é#")));
      }),
    );
  });

  test("what only began like a stop string comes out at the end", async () => {
    expect((await pieces(scripted(bytes("a##")), { stop: ["###"] })).join("")).toBe("a##");
    expect((await pieces(scripted(bytes("a##")), { stop: ["###"], maxNewTokens: 2 })).join("")).toBe("a#");
  });

  test("a character that the limit cuts is one replacement character", async () => {
    expect((await pieces(scripted(bytes("x猫")), { maxNewTokens: 3 })).join("")).toBe("x\ufffd");
  });

  test("control tokens are no text", async () => {
    expect((await pieces(scripted([...bytes("a"), 256, ...bytes("b")]))).join("")).toBe("ab");
  });
});

test("repetition penalty counts what was said, not the prompt", async () => {
  const model = {
    async forward() {
      const scores = new Float32Array(vocabSize);
      scores[1] = 4;
      scores[65] = 3;
      scores[66] = 2.5;
      return ndarray("float32", [1, vocabSize], scores);
    },
  };
  const text = (await pieces(model, { maxNewTokens: 4, repetitionPenalty: 2 })).join("");
  expect(text).toBe("\u0001AB\u0001");
});

test("a real model: the same seed says the same, another seed something else, none is greedy", async () => {
  const model = await tinyLanguageModel(vocabSize);
  const say = async (options: Partial<GenerateOptions>, seed: number) => {
    const settings = { maxNewTokens: 30, ...options };
    let text = "";
    for await (const piece of generate(model, byteTokenizer, [256, 70], model.newCache(), settings, new Random(seed))) {
      text += piece;
    }
    return text;
  };
  const first = await say({ temperature: 1 }, 1);
  expect(await say({ temperature: 1 }, 1)).toBe(first);
  expect(await say({ temperature: 1 }, 2)).not.toBe(first);
  expect(await say({}, 1)).toBe(await say({}, 2));
  expect(await say({ temperature: 1, topK: 1 }, 7)).toBe(await say({}, 1));
  await model.close();
});

test("a cancelled answer stops before the next token", async () => {
  const controller = new AbortController();
  const found: string[] = [];
  const run = async () => {
    const options = { maxNewTokens: 10, signal: controller.signal };
    for await (const piece of generate(
      scripted(bytes("abcdef")),
      byteTokenizer,
      [1],
      cache(),
      options,
      new Random(0),
    )) {
      found.push(piece);
      if (piece === "c") controller.abort();
    }
  };
  await expect(run()).rejects.toThrow(/abort/i);
  expect(found.join("")).toBe("abc");
});
