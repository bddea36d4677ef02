/**
 * SentencePiece tokenizer as LLaMA uses it: byte-pair encoding with byte fallback. Spaces are written as "▁", and one is
 * put before the text.
 */
import { PIECE_TYPE, type SentencePieceModel } from "./sentencepiece-model.ts";
import { alternatives, createTokenizer, type Piece, type Tokenizer } from "./tokenizer.ts";

/** Creates the tokenizer of a SentencePiece model. @throws Error if the vocabulary lacks a byte piece */
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
    // Matched as a whole before merging; without a score it never results from a merge.
    if (type === PIECE_TYPE.userDefined) userDefined.push(text);
  });
  const missing = byteIds.indexOf(-1);
  if (missing >= 0) throw new Error(`the vocabulary has no piece for byte ${missing}, which byte fallback needs`);

  const symbols = new RegExp([...alternatives(userDefined), "."].join("|"), "gsu");
  return createTokenizer({
    pieces,
    bosId: model.bosId,
    eosId: model.eosId,
    padId: model.padId,
    // The space put before the text, and one more: the original tokenizer strips two when a text starts with both.
    strippedSpaces: addDummyPrefix ? 2 : 0,
    controlTokens,
    wholeTokens: new Map(),
    encodeOrdinary(text) {
      const escaped = `${addDummyPrefix ? " " : ""}${text}`.replaceAll(" ", "▁");
      return mergeSymbols(escaped.match(symbols) ?? [], scores).flatMap((piece) => {
        const id = ids.get(piece);
        return id === undefined ? Array.from(utf8(piece), (byte) => byteIds[byte] ?? 0) : id;
      });
    },
  });
}

/** A possible merge of two neighbouring symbols. It is outdated if one of them has been merged, so that `middle` or `end` no longer match. */
interface Candidate {
  readonly start: number;
  readonly middle: number;
  readonly end: number;
  readonly score: number;
}

/**
 * Byte-pair encoding as SentencePiece does it: merges the two neighbours whose merged piece has the best score (the
 * leftmost of equal ones), until no merge is left. A whole text is merged at once, with the candidates in a heap:
 * O(n log n) even for a text without spaces.
 *
 * @param symbols the text: single characters, or user-defined pieces
 * @param scores the scores of pieces that may result from a merge
 * @returns the pieces in order; joined, they are the text
 */
function mergeSymbols(symbols: readonly string[], scores: ReadonlyMap<string, number>): string[] {
  const text = symbols.join("");
  // Symbols are identified by their start. `ends[start]` is the end of a symbol, 0 inside a symbol.
  const ends = new Int32Array(text.length + 1);
  const previous = new Int32Array(text.length + 1).fill(-1);
  const heap = new Heap();

  const propose = (start: number, middle: number) => {
    if (start < 0 || middle >= text.length) return;
    const end = ends[middle] ?? 0;
    const score = scores.get(text.slice(start, end));
    if (score !== undefined) heap.push({ start, middle, end, score });
  };

  let at = 0;
  let before = -1;
  for (const symbol of symbols) {
    ends[at] = at + symbol.length;
    previous[at] = before;
    before = at;
    at += symbol.length;
  }
  for (let start = 0; start < text.length; start = ends[start] ?? 0) propose(start, ends[start] ?? 0);

  for (let best = heap.pop(); best !== undefined; best = heap.pop()) {
    const { start, middle, end } = best;
    if (ends[start] !== middle || ends[middle] !== end) continue;
    ends[start] = end;
    ends[middle] = 0;
    previous[end] = start;
    propose(previous[start] ?? -1, start);
    propose(start, end);
  }

  const pieces: string[] = [];
  for (let start = 0; start < text.length; start = ends[start] ?? 0) pieces.push(text.slice(start, ends[start]));
  return pieces;
}

/** A binary heap of candidates, best first. */
class Heap {
  readonly #items: Candidate[] = [];

  push(item: Candidate): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent];
      if (above === undefined || !isBetter(item, above)) break;
      items[at] = above;
      at = parent;
    }
    items[at] = item;
  }

  pop(): Candidate | undefined {
    const items = this.#items;
    const top = items[0];
    const item = items.pop();
    if (item === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const left = items[child];
      if (left === undefined) break;
      const right = items[child + 1];
      let below = left;
      if (right !== undefined && isBetter(right, left)) {
        below = right;
        child++;
      }
      if (!isBetter(below, item)) break;
      items[at] = below;
      at = child;
    }
    items[at] = item;
    return top;
  }
}

function isBetter(a: Candidate, b: Candidate): boolean {
  return a.score > b.score || (a.score === b.score && a.start < b.start);
}

function parseBytePiece(text: string): number {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(text)?.[1];
  if (hex === undefined) throw new Error(`the byte piece "${text}" is malformed; expected a name like <0x00>`);
  return Number.parseInt(hex, 16);
}

const encoder = new TextEncoder();
function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}
