import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadWordPiece, type WordPieceTokenizer } from "../../src/tokenizers/wordpiece.ts";

const control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const words = [
  "a",
  "dog",
  "run",
  "##s",
  "##ning",
  "cafe",
  "café",
  "Dog",
  "unknown",
  "[",
  "]",
  "sep",
  ".",
  ",",
  "'",
  "s",
];
const letters = ["d", "##d", "中", "文", "𠀀", "σ", "##σ", "##ος", "x"];
const vocabulary = [...control, ...words, ...letters];

let root = "";
let folders = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "wordpiece-"));
});
afterAll(() => rm(root, { recursive: true }));

async function folderOf(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(root, `${folders++}`);
  await mkdir(folder);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

const vocabTxt = (tokens: readonly string[]) => tokens.map((token) => `${token}\n`).join("");

function tokenizerJson(tokens: readonly string[], { lowercase = true, ...changes }: Record<string, unknown> = {}) {
  return JSON.stringify({
    added_tokens: control.map((content) => ({ id: tokens.indexOf(content), content, special: true })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    },
    ...changes,
  });
}

/** The tokens of a text, without [CLS] and [SEP]. */
function pieces(tokenizer: WordPieceTokenizer, text: string): (string | undefined)[] {
  const ids = tokenizer.encode(text, 200);
  expect([ids[0], ids.at(-1)]).toEqual([tokenizer.clsId, tokenizer.sepId]);
  return ids.slice(1, -1).map((id) => tokenizer.vocabulary[id]);
}

describe("texts are split as in BERT", async () => {
  let tokenizer: WordPieceTokenizer;
  beforeAll(async () => {
    tokenizer = await loadWordPiece(await folderOf({ "vocab.txt": vocabTxt(vocabulary) }));
  });

  test.each([
    ["A dog runs, running.", ["a", "dog", "run", "##s", ",", "run", "##ning", "."]],
    ["dog's", ["dog", "'", "s"]],
    ["Cafe\u0301 CAFÉ", ["cafe", "cafe"]],
    ["中文dog𠀀𠀀", ["中", "文", "dog", "𠀀", "𠀀"]],
    ["d\u0000o\u200bg\ufffd\tdog\u00a0dog\r\ndog", ["dog", "dog", "dog", "dog"]],
    ["zebra dogz", ["[UNK]", "[UNK]"]],
    ["d".repeat(100), ["d", ...Array(99).fill("##d")]],
    ["d".repeat(101), ["[UNK]"]],
    ["ΣΣ", ["σ", "##σ"]],
    ["a [SEP] dog", ["a", "[", "sep", "]", "dog"]],
    ["##s", ["[UNK]", "[UNK]", "s"]],
    [" \n ", []],
  ])("%j", (text, expected) => {
    expect(pieces(tokenizer, text)).toEqual(expected);
  });

  test("a long text is truncated before [SEP]", () => {
    const { clsId, sepId } = tokenizer;
    const [dog, a] = [vocabulary.indexOf("dog"), vocabulary.indexOf("a")];
    expect(tokenizer.encode("a dog runs", 4)).toEqual([clsId, a, dog, sepId]);
    expect(tokenizer.encode("a dog runs", 2)).toEqual([clsId, sepId]);
    expect(() => tokenizer.encode("a dog", 1)).toThrow("maxLength is 1; expected at least 2");
  });

  test("decoding joins the pieces and omits special tokens", () => {
    const { clsId, sepId, padId, decId } = tokenizer;
    const ids = tokenizer.encode("A dog runs, running . café's zebra", 40);
    expect(tokenizer.decode([decId, ...ids, padId, padId])).toBe("a dog runs, running. cafe's [UNK]");
    expect(tokenizer.decode([clsId, sepId])).toBe("");
    expect(tokenizer.decode([])).toBe("");
  });

  test("[DEC] is the row after the vocabulary", () => {
    expect([tokenizer.size, tokenizer.decId]).toEqual([vocabulary.length + 1, vocabulary.length]);
    expect(tokenizer.vocabulary).toEqual(vocabulary);
    expect([tokenizer.padId, tokenizer.clsId, tokenizer.sepId]).toEqual([0, 2, 3]);
    expect(pieces(tokenizer, "[DEC]")).not.toContain(undefined);
  });

  test("any text gives at most maxLength ids of the vocabulary, and any ids decode to a text", () => {
    const anyUnit = fc.nat({ max: 0xffff }).map((unit) => String.fromCharCode(unit));
    const unit = fc.oneof(fc.constantFrom(...vocabulary, " "), anyUnit);
    fc.assert(
      fc.property(fc.array(unit), fc.integer({ min: 2, max: 30 }), (units, maxLength) => {
        const ids = tokenizer.encode(units.join(""), maxLength);
        expect(ids.length).toBeLessThanOrEqual(maxLength);
        expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.decId)).toBe(true);
        expect([ids[0], ids.at(-1)]).toEqual([tokenizer.clsId, tokenizer.sepId]);
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.nat({ max: vocabulary.length })), (ids) => {
        expect(typeof tokenizer.decode(ids)).toBe("string");
      }),
    );
  });
});

test("with do_lower_case false, case and accents are kept", async () => {
  const cased = { "vocab.txt": vocabTxt(vocabulary), "tokenizer_config.json": '{"do_lower_case": false}' };
  const tokenizer = await loadWordPiece(await folderOf(cased));
  expect(tokenizer.lowerCase).toBe(false);
  expect(pieces(tokenizer, "Dog dog café CAFE")).toEqual(["Dog", "dog", "café", "[UNK]"]);
});

test("vocab.txt and tokenizer.json, by file and by folder, give the same tokenizer", async () => {
  for (const lowercase of [true, false]) {
    const folder = await folderOf({
      "vocab.txt": vocabTxt(vocabulary).replaceAll("\n", "\r\n"),
      "tokenizer.json": tokenizerJson(vocabulary, { lowercase }),
      "tokenizer_config.json": JSON.stringify({ do_lower_case: lowercase, strip_accents: null }),
    });
    const paths = [folder, join(folder, "tokenizer.json"), join(folder, "vocab.txt")];
    const [first, ...others] = await Promise.all(paths.map(loadWordPiece));
    for (const other of others) {
      expect([other.size, other.lowerCase, other.vocabulary]).toEqual([first?.size, lowercase, vocabulary]);
      fc.assert(
        fc.property(fc.string({ unit: fc.constantFrom(...vocabulary, " ", "É", "\u0301") }), (text) => {
          expect(other.encode(text, 50)).toEqual(first?.encode(text, 50));
        }),
      );
    }
  }
});

test("[DEC] is not added to a vocabulary that ends in it", async () => {
  const longer = [...vocabulary, "[DEC]"];
  const added = [...control, "[DEC]"].map((content) => ({ id: longer.indexOf(content), content }));
  const folders = await Promise.all([
    folderOf({ "vocab.txt": vocabTxt(longer) }),
    folderOf({ "tokenizer.json": tokenizerJson(vocabulary, { added_tokens: added }) }),
  ]);
  for (const folder of folders) {
    const tokenizer = await loadWordPiece(folder);
    expect([tokenizer.size, tokenizer.decId]).toEqual([longer.length, longer.length - 1]);
    expect(tokenizer.vocabulary).toEqual(vocabulary);
  }
});

describe("anything but a BERT tokenizer is refused with file and reason", () => {
  test.each(["[CLS]", "[SEP]", "[PAD]", "[UNK]"])("a vocabulary without %s", async (missing) => {
    const folder = await folderOf({ "vocab.txt": vocabTxt(vocabulary.filter((token) => token !== missing)) });
    await expect(loadWordPiece(folder)).rejects.toThrow(
      `${join(folder, "vocab.txt")} is not a BERT vocabulary: its ${vocabulary.length - 1} tokens do not include ${missing}`,
    );
  });

  test("a folder with neither file", async () => {
    const folder = await folderOf({ "README.md": "" });
    await expect(loadWordPiece(folder)).rejects.toThrow(
      `${folder} has no BERT tokenizer; expected tokenizer.json or vocab.txt`,
    );
  });

  test.each([
    ["invalid JSON", "{", "is not valid JSON"],
    ["another model", tokenizerJson(vocabulary, { model: { type: "BPE", vocab: {}, merges: [] } }), '"WordPiece"'],
    ["another normalizer", tokenizerJson(vocabulary, { normalizer: { type: "NFC" } }), "normalizer"],
    [
      "a missing id",
      tokenizerJson([...vocabulary, "z"]).replace(/"z":\d+/, '"z":999'),
      "no token has id 30; expected ids 0 to 30",
    ],
    [
      "accents removed without lower-casing",
      tokenizerJson(vocabulary, {
        normalizer: { type: "BertNormalizer", lowercase: false, strip_accents: true },
      }),
      "strip_accents is true, but lower-casing is false",
    ],
  ])("%s", async (_, text, message) => {
    const folder = await folderOf({ "tokenizer.json": text });
    const error = await loadWordPiece(folder).catch((cause: unknown) => cause);
    expect(String(error)).toContain(join(folder, "tokenizer.json"));
    expect(String(error)).toContain(message);
  });

  test("a tokenizer_config.json with an unsupported setting", async () => {
    const config = '{"tokenize_chinese_chars": false}';
    const folder = await folderOf({ "vocab.txt": vocabTxt(vocabulary), "tokenizer_config.json": config });
    await expect(loadWordPiece(folder)).rejects.toThrow(join(folder, "tokenizer_config.json"));
  });
});
