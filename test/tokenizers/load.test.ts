import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadSentencePiece, loadTokenizer, tokenizerFromGguf } from "../../src/tokenizers/load.ts";
import { PIECE_TYPE, parseSentencePieceModel } from "../../src/tokenizers/sentencepiece-model.ts";
import { llamaSets, smolLm2Cases, smolLm2Metadata } from "../helpers/golden-texts.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tokenizer-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe.each(llamaSets)("SentencePiece model of $name", ({ goldens, tokenizerModel, llmFolder }) => {
  test("ids and texts match the original", async () => {
    const tokenizer = await loadTokenizer(llmFolder);
    for (const { text, ids, decoded } of goldens.tokenizer) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(decoded);
    }
    for (const { greedy, greedy_text } of goldens.dialogue) {
      expect(tokenizer.decode(greedy, { skipSpecial: true })).toBe(greedy_text);
    }
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.vocabSize]).toEqual([1, 2, 0, 800]);
    expect(tokenizer.encode("a", { bos: true })).toEqual([1, 261]);
  });

  test("any text survives encoding and decoding", async () => {
    const tokenizer = await loadSentencePiece(tokenizerModel);
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), (text) => {
        expect(tokenizer.decode(tokenizer.encode([{ text: `a${text}`, literal: true }]))).toBe(
          `a${text.replaceAll("▁", " ")}`,
        );
      }),
    );
  });

  test("the same pieces in a tokenizer.json give the same ids", async () => {
    const { pieces } = parseSentencePieceModel(await readFile(tokenizerModel));
    const ids = new Map(pieces.map(({ text }, id) => [text, id]));
    const merges = pieces
      .filter(({ type }) => type === PIECE_TYPE.normal)
      .sort((a, b) => b.score - a.score)
      .flatMap(({ text }) => {
        const chars = [...text];
        const splits = chars.slice(1).map((_, i) => [chars.slice(0, i + 1).join(""), chars.slice(i + 1).join("")]);
        return splits.filter((split) => split.every((half) => ids.has(half)));
      });
    const special = ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true }));
    await writeFile(
      join(folder, "tokenizer.json"),
      JSON.stringify({
        added_tokens: special,
        normalizer: {
          type: "Sequence",
          normalizers: [
            { type: "Prepend", prepend: "▁" },
            { type: "Replace", pattern: { String: " " }, content: "▁" },
          ],
        },
        pre_tokenizer: null,
        post_processor: { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<s>", type_id: 0 } }] },
        decoder: { type: "Sequence", decoders: [{ type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }] },
        model: { type: "BPE", vocab: Object.fromEntries(ids), merges, byte_fallback: true, unk_token: "<unk>" },
      }),
    );
    await writeFile(
      join(folder, "tokenizer_config.json"),
      JSON.stringify({ bos_token: { content: "<s>" }, eos_token: "</s>", pad_token: "<unk>" }),
    );
    const tokenizer = await loadTokenizer(folder);
    for (const { text, ids: expected } of goldens.tokenizer) expect(tokenizer.encode(text)).toEqual(expected);
    expect(tokenizer.decode([590, 715, 344, 717])).toBe("Hello");
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([1, 2, 0]);
  });
});

describe("byte-level tokenizer of SmolLM2", () => {
  const tokenizer = tokenizerFromGguf(smolLm2Metadata());

  test("ids and texts match llama.cpp", () => {
    for (const { prompt, ids, greedy_ids = [], greedy_text = "" } of smolLm2Cases) {
      expect(tokenizer.encode(prompt)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(prompt);
      expect(tokenizer.decode(greedy_ids)).toBe(greedy_text);
    }
    expect(tokenizer.decode([1, 4093, 2], { skipSpecial: true })).toBe("user");
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.vocabSize]).toEqual([undefined, 2, 2, 49152]);
  });

  test("any text survives encoding and decoding, and literal text never becomes a control token", () => {
    const controls = fc.constantFrom("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>");
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string({ unit: "grapheme" }), controls)), (parts) => {
        const text = parts.join("");
        const ids = tokenizer.encode([{ text, literal: true }]);
        expect(tokenizer.decode(ids)).toBe(text);
        expect(ids.filter((id) => id <= 16)).toEqual([]);
      }),
    );
  });

  test("a control token is not recognized across two parts", () => {
    expect(tokenizer.encode([{ text: "<|im_" }, { text: "end|>", literal: true }])).not.toContain(2);
    expect(tokenizer.encode([{ text: "a" }, { text: "b", literal: true }])).toEqual(tokenizer.encode("ab"));
  });

  test("ids outside the vocabulary are refused", () => {
    expect(() => tokenizer.decode([49152])).toThrow(
      "token id 49152 is not in the vocabulary, which has ids 0 to 49151",
    );
    expect(() => tokenizer.tokenBytes(-1)).toThrow(RangeError);
  });
});

test("the SentencePiece vocabulary of a GGUF file gives the same ids as its model file", async () => {
  const [set] = llamaSets;
  if (set === undefined) throw new Error("no golden folder");
  const { pieces } = parseSentencePieceModel(await readFile(set.tokenizerModel));
  const tokenizer = tokenizerFromGguf({
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": pieces.map(({ text }) => text),
    "tokenizer.ggml.scores": Float32Array.from(pieces, ({ score }) => score),
    "tokenizer.ggml.token_type": Int32Array.from(pieces, ({ type }) => type),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
  });
  for (const { text, ids } of set.goldens.tokenizer) expect(tokenizer.encode(text)).toEqual(ids);
  expect(tokenizer.bosId).toBe(1);
});

describe("bad input", () => {
  test.each([
    ["model", "wordpiece", /tokenizer\.ggml\.model is "wordpiece"/],
    ["pre", "toString", /tokenizer\.ggml\.pre is "toString"; supported are "smollm"/],
    ["merges", undefined, /tokenizer\.ggml\.merges is missing/],
    ["tokens", [1, 2], /tokenizer\.ggml\.tokens is not a list of strings/],
    ["token_type", [1, 2], /tokenizer\.ggml\.token_type has 2 entries; expected one for each of 49152 tokens/],
    ["eos_token_id", undefined, /tokenizer\.ggml\.eos_token_id is missing/],
    ["eos_token_id", 50000, /eosId is 50000, but the vocabulary has ids 0 to 49151/],
  ])("GGUF with %s = %j", (key, value, message) => {
    expect(() => tokenizerFromGguf({ ...smolLm2Metadata(), [`tokenizer.ggml.${key}`]: value })).toThrow(message);
  });

  test("a damaged tokenizer.model still loads, or the error names the file", async () => {
    const [set] = llamaSets;
    const bytes = await readFile(set?.tokenizerModel ?? "");
    const path = join(folder, "tokenizer.model");
    const damaged = fc.oneof(
      fc.nat({ max: bytes.length - 1 }).map((length) => bytes.subarray(0, length)),
      fc.tuple(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 })).map(([at, byte]) => {
        const changed = Uint8Array.from(bytes);
        changed[at] = byte;
        return changed;
      }),
      fc.uint8Array({ maxLength: 200 }),
    );
    await fc.assert(
      fc.asyncProperty(damaged, async (content) => {
        await writeFile(path, content);
        const result = await loadSentencePiece(path).catch((error: unknown) => error);
        if (result instanceof Error) expect(result.message).toContain(path);
        else expect(result).toHaveProperty("encode");
      }),
    );
    await writeFile(path, bytes.subarray(0, 5000));
    await expect(loadSentencePiece(path)).rejects.toThrow(/tokenizer\.model: not a SentencePiece model, or damaged/);
  });

  test("missing files, and files of another kind", async () => {
    const empty = await mkdtemp(join(folder, "empty-"));
    await expect(loadTokenizer(empty)).rejects.toThrow("has no tokenizer; expected tokenizer.json or tokenizer.model");
    await writeFile(join(empty, "tokenizer_config.json"), "{}");
    await writeFile(join(empty, "tokenizer.json"), "{");
    await expect(loadTokenizer(empty)).rejects.toThrow("tokenizer.json: is not valid JSON");
    await writeFile(join(empty, "tokenizer.json"), JSON.stringify({ model: { type: "Unigram" } }));
    await expect(loadTokenizer(empty)).rejects.toThrow(/tokenizer\.json: .*BPE/s);
  });
});

test("long texts take O(n log n) time", async () => {
  const tokenizer = await loadSentencePiece(llamaSets[0]?.tokenizerModel ?? "");
  const start = performance.now();
  expect(tokenizer.encode("ab ".repeat(100_000)).length).toBeGreaterThan(100_000);
  expect(tokenizer.encode(" ".repeat(300_000)).length).toBeGreaterThan(0);
  expect(performance.now() - start).toBeLessThan(10_000);
});
