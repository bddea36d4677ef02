/**
 * SentencePiece models as LLaMA uses them: byte-pair encoding with bytes for what has no piece, spaces written as "▁",
 * one of them put before the text.
 */

import { readFile } from "node:fs/promises";
import { alternatives, createTokenizer, type Piece, type Tokenizer } from "./vocabulary.ts";
import { mergeSymbols } from "./sentencepiece-bpe.ts";
import { readSentencePieceModel } from "./sentencepiece-model.ts";

/** Kinds of pieces, by their numbers in the file format (GGUF has taken them over). */
export const PIECE_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** One entry of a SentencePiece vocabulary; its id is its position. */
export interface ScoredPiece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

export interface SentencePieceModel extends Pick<Tokenizer, "bosId" | "eosId" | "padId"> {
  readonly pieces: readonly ScoredPiece[];
  readonly addDummyPrefix: boolean;
}

/**
 * The tokenizer of a `tokenizer.model` file.
 * @throws Error naming the file if it cannot be read, is damaged, or is no byte-pair encoding with byte fallback
 */
export async function loadSentencePiece(path: string): Promise<Tokenizer> {
  const bytes = await readFile(path);
  try {
    return sentencePieceTokenizer(readSentencePieceModel(bytes));
  } catch (cause) {
    throw new Error(`${path}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

/** The tokenizer of a model in memory. @throws Error if the pieces are no complete vocabulary */
export function sentencePieceTokenizer(model: SentencePieceModel): Tokenizer {
  const { pieces, bosId, eosId, padId, addDummyPrefix } = model;
  for (const [name, id] of Object.entries({ bosId, eosId, padId })) {
    if (id !== undefined && !(id >= 0 && id < pieces.length)) {
      throw new Error(`${name} is ${id}, but the vocabulary has ids 0 to ${pieces.length - 1}`);
    }
  }

  const byId: Piece[] = [];
  const byteIds = new Int32Array(256).fill(-1);
  const controlTokens = new Map<string, number>();
  const ids = new Map<string, number>();
  const scores = new Map<string, number>();
  const userDefined: string[] = [];
  pieces.forEach(({ text, score, type }, id) => {
    const byte = type === PIECE_TYPE.byte ? parseBytePiece(text) : undefined;
    const control = type === PIECE_TYPE.control || type === PIECE_TYPE.unknown;
    byId.push({ bytes: byte === undefined ? utf8(text.replaceAll("▁", " ")) : Uint8Array.of(byte), control });
    if (byte !== undefined) {
      byteIds[byte] = id;
    } else if (control) {
      controlTokens.set(text, id);
    } else if (type !== PIECE_TYPE.unused) {
      ids.set(text, id);
      // A user-defined piece is found as a whole, and nothing is merged into one.
      if (type === PIECE_TYPE.userDefined) userDefined.push(text);
      else scores.set(text, score);
    }
  });
  const missing = byteIds.indexOf(-1);
  if (missing >= 0) throw new Error(`the vocabulary has no piece for the byte ${missing}, which byte fallback needs`);

  const symbols = new RegExp([alternatives(userDefined), "."].filter(Boolean).join("|"), "gsu");
  const scoreOf = (piece: string) => scores.get(piece);
  return createTokenizer({
    vocabSize: pieces.length,
    bosId,
    eosId,
    padId,
    addsLeadingSpace: addDummyPrefix,
    piece: (id) => byId[id] ?? unreachable(id),
    controlTokens,
    wholeTokens: new Map(),
    encodeOrdinary(text) {
      const escaped = `${addDummyPrefix ? " " : ""}${text}`.replaceAll(" ", "▁");
      return mergeSymbols(escaped.match(symbols) ?? [], scoreOf).flatMap((piece) => {
        const id = ids.get(piece);
        return id === undefined ? Array.from(utf8(piece), (byte) => byteIds[byte] ?? 0) : id;
      });
    },
  });
}

function parseBytePiece(text: string): number {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(text)?.[1];
  if (hex === undefined) throw new Error(`"${text}" is marked as a byte but is not written like one (<0x00>)`);
  return Number.parseInt(hex, 16);
}

function unreachable(id: number): never {
  throw new RangeError(`no piece ${id}`);
}

const encoder = new TextEncoder();
function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}
