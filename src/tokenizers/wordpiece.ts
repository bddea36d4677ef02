/**
 * BERT's WordPiece tokenizer (Devlin et al., arXiv 1810.04805), for the texts of a Q-Former. A text is split into words, and a
 * word into the longest pieces of the vocabulary. @huggingface/tokenizers does the splitting.
 */
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { parseJsonText } from "../files/json.ts";
import type { JsonText } from "./tokenizer-json.ts";

export interface WordPieceTokenizer {
  /** Rows of the word embeddings: the vocabulary and, after it, [DEC], the start token of generated text (BLIP-2). */
  readonly size: number;
  readonly clsId: number;
  readonly sepId: number;
  readonly padId: number;
  /** Id of [DEC], the last row. */
  readonly decId: number;
  /**
   * Token ids of [CLS] text [SEP], truncated to `maxLength` tokens. Control tokens in the text are not recognized.
   */
  encode(text: string, maxLength: number): number[];
  /** The text of token ids, without [CLS], [SEP], [PAD] and [DEC]. */
  decode(ids: readonly number[]): string;
  /** The lines of `vocab.txt`, without [DEC]. */
  readonly vocabulary: readonly string[];
  /** Whether case and accents are removed: `do_lower_case` of `tokenizer_config.json`. */
  readonly lowerCase: boolean;
}

/**
 * Loads a `tokenizer.json`, a `vocab.txt` with a `tokenizer_config.json` next to it, or a folder that contains one of them.
 * [DEC] is added to a vocabulary that does not end in it.
 *
 * @throws Error naming the file and what is missing, malformed or different from BERT
 */
export async function loadWordPiece(path: string): Promise<WordPieceTokenizer> {
  const file = (await stat(path)).isDirectory() ? findTokenizer(path) : path;
  const text = await readFile(file, "utf8");
  const parts = file.endsWith(".json")
    ? parseTokenizerJson({ path: file, text })
    : { tokens: splitLines(text), lowerCase: await readLowerCase(file) };
  return wordPiece(file, parts);
}

const [unknown, start, end, padding, generated] = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[DEC]"];
const prefix = "##";
const longestWord = 100;

interface Parts {
  /** Tokens by id. */
  readonly tokens: readonly string[];
  readonly lowerCase: boolean;
}

function wordPiece(path: string, { tokens, lowerCase }: Parts): WordPieceTokenizer {
  const vocabulary = tokens.at(-1) === generated ? tokens.slice(0, -1) : tokens;
  const ids = new Map(vocabulary.map((token, id) => [token, id]));
  const requireId = (token: string): number => {
    const id = ids.get(token);
    if (id === undefined) {
      throw new Error(`${path} is not a BERT vocabulary: its ${ids.size} tokens do not include ${token}`);
    }
    return id;
  };
  requireId(unknown);
  // Differences of the library from BERT: BERT makes each Chinese character a word, also those of two UTF-16 units, and
  // lower-cases each character alone, so that a sigma at the end of a word is like any other.
  const prepare = (text: string) => {
    const spaced = text.replace(rareHan, " $& ");
    return lowerCase ? spaced.replaceAll("Σ", "σ") : spaced;
  };
  const [clsId, sepId, padId, decId] = [requireId(start), requireId(end), requireId(padding), vocabulary.length];
  const specialIds = new Set([clsId, sepId, padId, decId]);
  const tokenizer = new HuggingFaceTokenizer(
    {
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: lowerCase,
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
    lowerCase,
    encode(text, maxLength) {
      if (!(maxLength >= 2)) throw new Error(`maxLength is ${maxLength}; expected at least 2, for ${start} and ${end}`);
      const { ids } = tokenizer.encode(prepare(text), { add_special_tokens: false });
      return [clsId, ...ids.slice(0, maxLength - 2), sepId];
    },
    decode(ids) {
      const textIds = ids.filter((id) => !specialIds.has(id));
      return textIds.length > 0 ? tokenizer.decode(textIds) : "";
    },
  };
}

const rareHan = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

function findTokenizer(folder: string): string {
  for (const name of ["tokenizer.json", "vocab.txt"]) if (existsSync(join(folder, name))) return join(folder, name);
  throw new Error(`${folder} has no BERT tokenizer; expected tokenizer.json or vocab.txt`);
}

function splitLines(text: string): string[] {
  return text.replace(/\r?\n$/, "").split(/\r?\n/);
}

const tokenId = z.int().min(0);

/** All settings but case must be BERT's, so that the vocabulary and `lowerCase` describe the tokenizer. */
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

function parseTokenizerJson(json: JsonText): Parts {
  const { added_tokens: added, normalizer, model } = parseJsonText(json.text, json.path, tokenizerFile);
  const { lowercase: lowerCase, strip_accents: stripAccents } = normalizer;
  checkAccents(json.path, stripAccents, lowerCase);
  const byId = new Map(Object.entries(model.vocab).map(([token, id]) => [id, token]));
  for (const { id, content } of added) byId.set(id, content);
  const tokens = Array.from({ length: byId.size }, (_, id) => {
    const token = byId.get(id);
    if (token === undefined) throw new Error(`${json.path}: no token has id ${id}; expected ids 0 to ${byId.size - 1}`);
    return token;
  });
  return { tokens, lowerCase };
}

const configFile = z.object({
  do_lower_case: z.boolean().default(true),
  strip_accents: z.boolean().nullish(),
  tokenize_chinese_chars: z.literal(true).default(true),
});

/** Reads `tokenizer_config.json` next to a vocabulary. */
async function readLowerCase(vocabularyPath: string): Promise<boolean> {
  const path = join(dirname(vocabularyPath), "tokenizer_config.json");
  const text = existsSync(path) ? await readFile(path, "utf8") : "{}";
  const { do_lower_case: lowerCase, strip_accents: stripAccents } = parseJsonText(text, path, configFile);
  checkAccents(path, stripAccents, lowerCase);
  return lowerCase;
}

function checkAccents(path: string, stripAccents: boolean | null | undefined, lowerCase: boolean): void {
  if ((stripAccents ?? lowerCase) === lowerCase) return;
  throw new Error(
    `${path}: strip_accents is ${stripAccents}, but lower-casing is ${lowerCase}; only the same value of both is supported`,
  );
}
