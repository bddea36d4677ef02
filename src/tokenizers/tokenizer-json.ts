/**
 * The tokenizer of a `tokenizer.json` (Hugging Face), with `tokenizer_config.json` beside it, for the two kinds that
 * language models of the LLaMA family come with: byte-level byte-pair encoding, and SentencePiece's with byte fallback.
 */
import { Tokenizer as Engine } from "@huggingface/tokenizers";
import { z } from "zod";
import { parseJsonText } from "../files/json.ts";
import { createTokenizer, type Piece, type Tokenizer } from "./tokenizer.ts";

// * Byte-level byte-pair encoding (GPT-2 and after): a text is first cut into words and numbers, and every byte is a
// character of its own, so nothing is unknown. The merging is done by @huggingface/tokenizers.

/** The bytes that a token of a byte-level vocabulary stands for; a character that is no byte stands for itself. */
export function bytesOfToken(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = byteOfChar.get(char);
    if (byte === undefined) bytes.push(...new TextEncoder().encode(char));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Printable bytes are written as themselves, the others as the characters from U+0100 on, in order. */
const byteOfChar: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

/**
 * A function from text to ids, for the parts of a `tokenizer.json` that say how. Control and added tokens are not its
 * business: they have been found before.
 */
export function textEncoder(parts: {
  normalizer: unknown;
  pre_tokenizer: unknown;
  model: unknown;
}): (text: string) => number[] {
  const engine = new Engine({ ...parts, added_tokens: [], decoder: null, post_processor: null }, {});
  return (text) => engine.encode(text, { add_special_tokens: false }).ids;
}

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

/** The text of a JSON file, and where it is from, for messages. */
export interface JsonText {
  readonly path: string;
  readonly text: string;
}

/**
 * The tokenizer of the texts of both files.
 * @throws Error naming the file and the field that is missing, malformed or of a kind that is not supported
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
      `${path}: the vocabulary is neither byte-level nor has it byte fallback; other kinds are not supported`,
    );
  }

  const pieces: Piece[] = [];
  for (const [token, id] of Object.entries(vocab)) {
    pieces[id] = { bytes: byteLevel ? bytesOfToken(token) : bytesOfPiece(token), control: false };
  }
  for (const { id, content, special } of file.added_tokens) {
    pieces[id] = { bytes: new TextEncoder().encode(content), control: special };
  }
  const ids = new Map([
    ...Object.entries(vocab),
    ...file.added_tokens.map(({ content, id }) => [content, id] as const),
  ]);
  const idOf = (role: "bos_token" | "eos_token" | "pad_token") => {
    const token = config[role] ?? undefined;
    const id = token === undefined ? undefined : ids.get(token);
    if (token !== undefined && id === undefined) {
      throw new Error(`${configPath}: ${role} is "${token}", which the vocabulary of ${path} does not have`);
    }
    return id;
  };

  const eosId = idOf("eos_token");
  if (eosId === undefined) throw new Error(`${configPath}: eos_token is missing: no token ends an answer`);
  const addsBos = config.add_bos_token ?? mentions(file.post_processor, config.bos_token ?? undefined);
  const marked = (special: boolean) =>
    new Map(file.added_tokens.filter((token) => token.special === special).map(({ content, id }) => [content, id]));
  return createTokenizer({
    // Ids that no token has are filled with tokens of no text.
    pieces: Array.from(pieces, (piece) => piece ?? { bytes: new Uint8Array(0), control: true }),
    bosId: addsBos ? idOf("bos_token") : undefined,
    eosId,
    padId: idOf("pad_token") ?? eosId,
    strippedSpaces: !byteLevel && mentions(file.decoder, "Strip") ? 1 : 0,
    controlTokens: marked(true),
    wholeTokens: marked(false),
    encodeOrdinary: encoderOf(path, file),
  });
}

function encoderOf(path: string, file: z.output<typeof tokenizerFile>): (text: string) => number[] {
  try {
    return textEncoder(file);
  } catch (cause) {
    throw new Error(`${path} cannot be used: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

/** A byte written as `<0x0A>`, or text with "▁" for spaces. */
function bytesOfPiece(token: string): Uint8Array {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
  return hex === undefined
    ? new TextEncoder().encode(token.replaceAll("▁", " "))
    : Uint8Array.of(Number.parseInt(hex, 16));
}

/** Whether a text is among the values of a JSON tree. */
function mentions(tree: unknown, text: string | undefined): boolean {
  if (typeof tree === "string") return tree === text;
  return typeof tree === "object" && tree !== null && Object.values(tree).some((value) => mentions(value, text));
}
