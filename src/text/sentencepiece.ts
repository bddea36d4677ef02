/**
 * The tokenizer of a SentencePiece vocabulary as LLaMA uses it: byte-pair encoding with bytes for what has no piece;
 * spaces are written as "▁", and one is put before the text.
 */

import { mergeSymbols } from "./sentencepiece-bpe.ts";
import { PIECE_TYPE, type SentencePieceModel } from "./sentencepiece-model.ts";
import { alternatives, createTokenizer, type Piece, type Tokenizer } from "./vocabulary.ts";

/** The tokenizer of a model in memory. @throws Error if the vocabulary is not complete */
export function sentencePieceTokenizer(model: SentencePieceModel): Tokenizer {
  const { addDummyPrefix } = model;
  const pieces: Piece[] = [];
  const controlTokens = new Map<string, number>();
  const ids = new Map<string, number>();
  const scores = new Map<string, number>();
  const byteIds = new Int32Array(256).fill(-1);
  const userDefined: string[] = [];
  model.pieces.forEach(({ text, score, type }, id) => {
    const control = type === PIECE_TYPE.control || type === PIECE_TYPE.unknown;
    if (type === PIECE_TYPE.byte) {
      const byte = parseBytePiece(text);
      byteIds[byte] = id;
      pieces.push({ bytes: Uint8Array.of(byte), control });
      return;
    }
    pieces.push({ bytes: utf8(text.replaceAll("▁", " ")), control });
    if (control) controlTokens.set(text, id);
    if (type === PIECE_TYPE.normal || type === PIECE_TYPE.userDefined) ids.set(text, id);
    if (type === PIECE_TYPE.normal) scores.set(text, score);
    // Found as a whole from the start; having no score, it is never the result of a merge.
    if (type === PIECE_TYPE.userDefined) userDefined.push(text);
  });
  const missing = byteIds.indexOf(-1);
  if (missing >= 0) throw new Error(`the vocabulary has no piece for the byte ${missing}, which byte fallback needs`);

  const symbols = new RegExp([...alternatives(userDefined), "."].join("|"), "gsu");
  const scoreOf = (piece: string) => scores.get(piece);
  return createTokenizer({
    pieces,
    bosId: model.bosId,
    eosId: model.eosId,
    padId: model.padId,
    // The one put before the text, and one more: the original's tokenizer takes two away when a text begins with both.
    strippedSpaces: addDummyPrefix ? 2 : 0,
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

const encoder = new TextEncoder();
function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}
