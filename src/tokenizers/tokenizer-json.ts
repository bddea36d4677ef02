/**
 * Tokenizers of Hugging Face's `tokenizer.json` and `tokenizer_config.json`, of the two kinds that LLaMA models use: byte-level
 * byte-pair encoding (GPT-2), and SentencePiece's with byte fallback. @huggingface/tokenizers does the merging.
 */
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { parseJsonText } from "../files/json.ts";
import { createTokenizer, type Piece, type Tokenizer } from "./tokenizer.ts";

const tokenId = z.int().min(0).max(10_000_000);

const tokenizerFile = z.object({
  added_tokens: z.array(z.object({ id: tokenId, content: z.string(), special: z.boolean() })).default([]),
  normalizer: z.unknown().transform((value) => value ?? null),
  pre_tokenizer: z.unknown().transform((value) => value ?? null),
  post_processor: z.unknown(),
  decoder: z.unknown(),
  model: z.looseObject({
    type: z.literal("BPE"),
    vocab: z.record(z.string(), tokenId),
    merges: z.array(z.union([z.string(), z.array(z.string()).length(2)])),
    byte_fallback: z.boolean().default(false),
  }),
});

const namedToken = z
  .union([z.string(), z.object({ content: z.string() }).transform((token) => token.content)])
  .nullish();

const configFile = z.object({
  bos_token: namedToken,
  eos_token: namedToken,
  pad_token: namedToken,
  add_bos_token: z.boolean().nullish(),
});

/** The text of a JSON file, and its path for messages. */
export interface JsonText {
  readonly path: string;
  readonly text: string;
}

/**
 * Creates a tokenizer from the texts of both files.
 * @throws Error naming the file and the field that is missing, malformed or not supported
 */
export function tokenizerFromJson(tokenizer: JsonText, tokenizerConfig: JsonText): Tokenizer {
  const { path } = tokenizer;
  const configPath = tokenizerConfig.path;
  const file = parseJsonText(tokenizer.text, tokenizer.path, tokenizerFile);
  const config = parseJsonText(tokenizerConfig.text, tokenizerConfig.path, configFile);

  const { vocab, byte_fallback: byteFallback } = file.model;
  const byteLevel = mentions(file.decoder, "ByteLevel");
  if (!byteLevel && !byteFallback) {
    throw new Error(
      `${path}: the vocabulary is not byte-level and has no byte fallback; other kinds are not supported`,
    );
  }

  const pieces: Piece[] = [];
  for (const [token, id] of Object.entries(vocab)) {
    pieces[id] = { bytes: byteLevel ? byteLevelBytes(token) : pieceBytes(token), control: false };
  }
  for (const { id, content, special } of file.added_tokens) {
    pieces[id] = { bytes: new TextEncoder().encode(content), control: special };
  }
  const ids = new Map([
    ...Object.entries(vocab),
    ...file.added_tokens.map(({ content, id }) => [content, id] as const),
  ]);
  const specialId = (role: "bos_token" | "eos_token" | "pad_token") => {
    const token = config[role] ?? undefined;
    const id = token === undefined ? undefined : ids.get(token);
    if (token !== undefined && id === undefined) {
      throw new Error(`${configPath}: ${role} is "${token}", which the vocabulary of ${path} does not have`);
    }
    return id;
  };

  const eosId = specialId("eos_token");
  if (eosId === undefined)
    throw new Error(`${configPath}: eos_token is missing; generation needs an end-of-sequence token`);
  const addsBos = config.add_bos_token ?? mentions(file.post_processor, config.bos_token ?? undefined);
  const addedTokens = (special: boolean) =>
    new Map(file.added_tokens.filter((token) => token.special === special).map(({ content, id }) => [content, id]));
  return createTokenizer({
    // Ids without a token get one without text.
    pieces: Array.from(pieces, (piece) => piece ?? { bytes: new Uint8Array(0), control: true }),
    bosId: addsBos ? specialId("bos_token") : undefined,
    eosId,
    padId: specialId("pad_token") ?? eosId,
    strippedSpaces: !byteLevel && mentions(file.decoder, "Strip") ? 1 : 0,
    controlTokens: addedTokens(true),
    wholeTokens: addedTokens(false),
    encodeOrdinary: fileEncoder(path, file),
  });
}

/** The bytes of a token of a byte-level vocabulary. A character that does not stand for a byte stands for itself. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = bytesByCharacter.get(char);
    if (byte === undefined) bytes.push(...new TextEncoder().encode(char));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Printable bytes are written as themselves, the others as the characters from U+0100 on, in order (GPT-2). */
const bytesByCharacter: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

/** A function from text to ids, from these parts of a `tokenizer.json`. The text contains no control or added tokens. */
export function createTextEncoder(parts: {
  normalizer: unknown;
  pre_tokenizer: unknown;
  model: unknown;
}): (text: string) => number[] {
  const tokenizer = new HuggingFaceTokenizer({ ...parts, added_tokens: [], decoder: null, post_processor: null }, {});
  return (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
}

function fileEncoder(path: string, file: z.output<typeof tokenizerFile>): (text: string) => number[] {
  try {
    return createTextEncoder(file);
  } catch (cause) {
    throw new Error(`${path} is not supported: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

/** The bytes of a SentencePiece token: a byte written as `<0x0A>`, or text with "▁" for spaces. */
function pieceBytes(token: string): Uint8Array {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
  return hex === undefined
    ? new TextEncoder().encode(token.replaceAll("▁", " "))
    : Uint8Array.of(Number.parseInt(hex, 16));
}

/** Whether a JSON tree contains a string value. */
function mentions(tree: unknown, text: string | undefined): boolean {
  if (typeof tree === "string") return tree === text;
  return typeof tree === "object" && tree !== null && Object.values(tree).some((value) => mentions(value, text));
}
