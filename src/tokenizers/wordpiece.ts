/**
 * BERT's WordPiece tokenizer (Devlin et al., arXiv 1810.04805), for the texts that a Q-Former reads and writes. A text is
 * cut into words, and a word into the longest pieces that the vocabulary has. @huggingface/tokenizers does the cutting.
 */
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Tokenizer as Engine } from "@huggingface/tokenizers";
import { z } from "zod";
import { parseJsonText } from "../files/json.ts";
import type { JsonText } from "./tokenizer-json.ts";

export interface WordPieceTokenizer {
  /** Rows of the word table: the vocabulary and, after it, [DEC], which begins a text that is generated (BLIP-2). */
  readonly size: number;
  readonly clsId: number;
  readonly sepId: number;
  readonly padId: number;
  /** The last row. */
  readonly decId: number;
  /**
   * [CLS] text [SEP], at most `maxLength` tokens: a longer text is cut before [SEP]. What looks like a control token in
   * the text is text.
   */
  encode(text: string, maxLength: number): number[];
  /** The text of ids, without [CLS], [SEP], [PAD] and [DEC]. */
  decode(ids: readonly number[]): string;
  /** The lines of a `vocab.txt` (without [DEC]), for a model folder. */
  readonly vocabulary: readonly string[];
  /** Whether upper case and accents are taken away: "do_lower_case" of a `tokenizer_config.json`. */
  readonly lowerCases: boolean;
}

/**
 * The tokenizer of a `tokenizer.json`, of a `vocab.txt` with the `tokenizer_config.json` beside it, or of a folder that
 * holds one of them. A vocabulary that ends in [DEC] already keeps it.
 *
 * @throws Error naming the file, and what in it is missing, malformed or not as BERT has it
 */
export async function loadWordPiece(path: string): Promise<WordPieceTokenizer> {
  const file = (await stat(path)).isDirectory() ? tokenizerOf(path) : path;
  const text = await readFile(file, "utf8");
  const parts = file.endsWith(".json")
    ? partsOfJson({ path: file, text })
    : { tokens: linesOf(text), lowerCases: await lowerCasesBeside(file) };
  return wordPiece(file, parts);
}

const [unknown, start, end, padding, generated] = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[DEC]"];
const prefix = "##";
const longestWord = 100;

interface Parts {
  /** In the order of their ids. */
  readonly tokens: readonly string[];
  readonly lowerCases: boolean;
}

function wordPiece(path: string, { tokens, lowerCases }: Parts): WordPieceTokenizer {
  const vocabulary = tokens.at(-1) === generated ? tokens.slice(0, -1) : tokens;
  const ids = new Map(vocabulary.map((token, id) => [token, id]));
  const idOf = (token: string): number => {
    const id = ids.get(token);
    if (id === undefined)
      throw new Error(`${path}: no vocabulary of BERT: its ${ids.size} tokens are without ${token}`);
    return id;
  };
  idOf(unknown);
  // Where the library is not BERT's: each Chinese character is a word, also those of two UTF-16 units, and case is taken
  // away from each character alone, so that a sigma that ends a word is like any other.
  const prepare = (text: string) => {
    const spaced = text.replace(rareHan, " $& ");
    return lowerCases ? spaced.replaceAll("Σ", "σ") : spaced;
  };
  const [clsId, sepId, padId, decId] = [idOf(start), idOf(end), idOf(padding), vocabulary.length];
  const unspoken = new Set([clsId, sepId, padId, decId]);
  const engine = new Engine(
    {
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: lowerCases,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      model: {
        type: "WordPiece",
        vocab: Object.fromEntries(ids),
        unk_token: unknown,
        continuing_subword_prefix: prefix,
        max_input_chars_per_word: longestWord,
      },
      decoder: { type: "WordPiece", prefix, cleanup: true },
      post_processor: null,
      added_tokens: [],
    },
    {},
  );
  return {
    size: decId + 1,
    clsId,
    sepId,
    padId,
    decId,
    vocabulary,
    lowerCases,
    encode(text, maxLength) {
      if (!(maxLength >= 2)) throw new Error(`A text has ${start} and ${end}; it cannot be cut to ${maxLength} tokens`);
      const { ids } = engine.encode(prepare(text), { add_special_tokens: false });
      return [clsId, ...ids.slice(0, maxLength - 2), sepId];
    },
    decode(ids) {
      const spoken = ids.filter((id) => !unspoken.has(id));
      return spoken.length > 0 ? engine.decode(spoken) : "";
    },
  };
}

const rareHan = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

function tokenizerOf(folder: string): string {
  for (const name of ["tokenizer.json", "vocab.txt"]) if (existsSync(join(folder, name))) return join(folder, name);
  throw new Error(`${folder} has no tokenizer of BERT: neither tokenizer.json nor vocab.txt is there`);
}

function linesOf(text: string): string[] {
  return text.replace(/\r?\n$/, "").split(/\r?\n/);
}

const tokenId = z.int().min(0);

/** Everything but case is as BERT has it, so that the vocabulary and `lowerCases` say all. */
const tokenizerFile = z.object({
  added_tokens: z.array(z.object({ id: tokenId, content: z.string() })).default([]),
  normalizer: z.object({
    type: z.literal("BertNormalizer"),
    clean_text: z.literal(true).default(true),
    handle_chinese_chars: z.literal(true).default(true),
    strip_accents: z.boolean().nullish(),
    lowercase: z.boolean(),
  }),
  pre_tokenizer: z.object({ type: z.literal("BertPreTokenizer") }),
  model: z.object({
    type: z.literal("WordPiece"),
    vocab: z.record(z.string().regex(/^[^\r\n]*$/, "a token is one line"), tokenId),
    unk_token: z.literal(unknown).default(unknown),
    continuing_subword_prefix: z.literal(prefix).default(prefix),
    max_input_chars_per_word: z.literal(longestWord).default(longestWord),
  }),
});

function partsOfJson(json: JsonText): Parts {
  const { added_tokens: added, normalizer, model } = parseJsonText(json.text, json.path, tokenizerFile);
  const { lowercase: lowerCases, strip_accents: stripAccents } = normalizer;
  checkAccents(json.path, stripAccents, lowerCases);
  const byId = new Map(Object.entries(model.vocab).map(([token, id]) => [id, token]));
  for (const { id, content } of added) byId.set(id, content);
  const tokens = Array.from({ length: byId.size }, (_, id) => {
    const token = byId.get(id);
    if (token === undefined) throw new Error(`${json.path}: of the ${byId.size} tokens none has the id ${id}`);
    return token;
  });
  return { tokens, lowerCases };
}

const configFile = z.object({
  do_lower_case: z.boolean().default(true),
  strip_accents: z.boolean().nullish(),
  tokenize_chinese_chars: z.literal(true).default(true),
});

async function lowerCasesBeside(vocabularyPath: string): Promise<boolean> {
  const path = join(dirname(vocabularyPath), "tokenizer_config.json");
  const text = existsSync(path) ? await readFile(path, "utf8") : "{}";
  const { do_lower_case: lowerCases, strip_accents: stripAccents } = parseJsonText(text, path, configFile);
  checkAccents(path, stripAccents, lowerCases);
  return lowerCases;
}

function checkAccents(path: string, stripAccents: boolean | null | undefined, lowerCases: boolean): void {
  if ((stripAccents ?? lowerCases) === lowerCases) return;
  throw new Error(
    `${path}: strip_accents is ${stripAccents} where lower-casing is ${lowerCases}; accents can only go with upper case`,
  );
}
