/** The tokenizer inside a GGUF file (keys `tokenizer.ggml.*`). */

import { sentencePieceTokenizer } from "./sentencepiece.ts";
import { PIECE_TYPE } from "./sentencepiece-model.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";
import { byteLevelBytes, createTextEncoder } from "./tokenizer-json.ts";

type Metadata = Readonly<Record<string, unknown>>;

/** Pre-tokenizers by `tokenizer.ggml.pre`, as in a `tokenizer.json`. */
const preTokenizers: Readonly<Record<string, unknown>> = {
  smollm: {
    type: "Sequence",
    pretokenizers: [
      { type: "Digits", individual_digits: true },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
};

/**
 * Creates the tokenizer of a GGUF file from its metadata: byte-level ("gpt2") or SentencePiece ("llama").
 * @throws Error naming the key that is missing, malformed or not supported
 */
export function tokenizerFromGguf(metadata: Metadata): Tokenizer {
  const model = metadata["tokenizer.ggml.model"];
  if (model === "gpt2") return byteLevel(metadata);
  if (model === "llama") return sentencePiece(metadata);
  throw new Error(`tokenizer.ggml.model is ${show(model)}; supported are "gpt2" and "llama"`);
}

function byteLevel(metadata: Metadata): Tokenizer {
  const pre = metadata["tokenizer.ggml.pre"];
  const preTokenizer = typeof pre === "string" && Object.hasOwn(preTokenizers, pre) ? preTokenizers[pre] : undefined;
  if (preTokenizer === undefined) {
    throw new Error(
      `tokenizer.ggml.pre is ${show(pre)}; supported are ${Object.keys(preTokenizers).map(show).join(", ")}`,
    );
  }
  const tokens = strings(metadata, "tokens");
  const merges = strings(metadata, "merges");
  const types = numbers(metadata, "token_type", tokens.length);

  const controlTokens = new Map<string, number>();
  const wholeTokens = new Map<string, number>();
  tokens.forEach((token, id) => {
    const type = types[id];
    if (type === PIECE_TYPE.control || type === PIECE_TYPE.unknown) controlTokens.set(token, id);
    if (type === PIECE_TYPE.userDefined) wholeTokens.set(token, id);
  });
  return createTokenizer({
    pieces: tokens.map((token, id) => ({
      bytes: types[id] === PIECE_TYPE.normal ? byteLevelBytes(token) : new TextEncoder().encode(token),
      control: controlTokens.get(token) === id,
    })),
    ...specialIds(metadata, false),
    strippedSpaces: 0,
    controlTokens,
    wholeTokens,
    encodeOrdinary: createTextEncoder({
      normalizer: null,
      pre_tokenizer: preTokenizer,
      model: {
        type: "BPE",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    }),
  });
}

function sentencePiece(metadata: Metadata): Tokenizer {
  const tokens = strings(metadata, "tokens");
  const scores = numbers(metadata, "scores", tokens.length);
  const types = numbers(metadata, "token_type", tokens.length);
  return sentencePieceTokenizer({
    pieces: tokens.map((text, id) => ({ text, score: scores[id] ?? 0, type: types[id] ?? PIECE_TYPE.normal })),
    ...specialIds(metadata, true),
    addDummyPrefix: metadata["tokenizer.ggml.add_space_prefix"] !== false,
  });
}

function specialIds(metadata: Metadata, addsBosByDefault: boolean): Pick<Tokenizer, "bosId" | "eosId" | "padId"> {
  const eosId = id(metadata, "eos_token_id");
  if (eosId === undefined)
    throw new Error("tokenizer.ggml.eos_token_id is missing; generation needs an end-of-sequence token");
  const addsBos = metadata["tokenizer.ggml.add_bos_token"] ?? addsBosByDefault;
  return {
    bosId: addsBos ? id(metadata, "bos_token_id") : undefined,
    eosId,
    padId: id(metadata, "padding_token_id") ?? eosId,
  };
}

function id(metadata: Metadata, name: string): number | undefined {
  const value = metadata[`tokenizer.ggml.${name}`];
  if (value === undefined) return undefined;
  if (typeof value !== "number") throw new Error(`tokenizer.ggml.${name} is ${show(value)}; expected a token id`);
  return value;
}

function strings(metadata: Metadata, name: string): readonly string[] {
  const value = metadata[`tokenizer.ggml.${name}`];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new Error(`tokenizer.ggml.${name} is ${value === undefined ? "missing" : "not a list of strings"}`);
  }
  return value;
}

function numbers(metadata: Metadata, name: string, length: number): readonly number[] {
  const value = metadata[`tokenizer.ggml.${name}`];
  if (value === undefined) throw new Error(`tokenizer.ggml.${name} is missing`);
  const list = Array.isArray(value) || ArrayBuffer.isView(value) ? Array.from(value as ArrayLike<unknown>, Number) : [];
  if (list.length !== length) {
    throw new Error(`tokenizer.ggml.${name} has ${list.length} entries; expected one for each of ${length} tokens`);
  }
  return list;
}

function show(value: unknown): string {
  return value === undefined ? "missing" : JSON.stringify(value);
}
