/** What every tokenizer of this project is: pieces with numbers, some of them control tokens. */

/** A stretch of text. In a `literal` one (what a user wrote) nothing is a control token, whatever it looks like. */
export interface TextPart {
  readonly text: string;
  readonly literal?: boolean;
}

export interface Tokenizer {
  /** Number of token ids; they run from 0. */
  readonly vocabSize: number;
  /** The token that the model expects before a sequence; undefined where it expects none. */
  readonly bosId: number | undefined;
  /** The token that ends an answer. */
  readonly eosId: number;
  /** Fills up shorter sequences of a batch; never a target. */
  readonly padId: number;
  /** How many spaces, at most, decoding takes from the beginning of a text: encoding puts one there (SentencePiece). */
  readonly strippedSpaces: number;
  /**
   * Token ids of a text, or of parts of one that are read as one text. Control tokens that are written in it
   * (`<|im_start|>`, `</s>`) are recognised, except in literal parts. `bos` (default false) puts `bosId` first.
   */
  encode(text: string | readonly TextPart[], options?: { bos?: boolean }): number[];
  /**
   * The text of token ids. Bytes that form no character become U+FFFD. Control tokens are written out, or left out with
   * `skipSpecial`. @throws RangeError for an id outside the vocabulary
   */
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  /** The bytes (UTF-8, maybe a part of a character) that a token stands for; of a control token none. */
  bytesOf(id: number): Uint8Array;
}

/** A token: what it stands for, and whether it is a control token, which stands for no text. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly control: boolean;
}

/** What differs from tokenizer to tokenizer. */
export interface Vocabulary extends Pick<Tokenizer, "bosId" | "eosId" | "padId" | "strippedSpaces"> {
  /** The tokens; an id is a position here. */
  readonly pieces: readonly Piece[];
  /** Control tokens by the text that is recognised as such. */
  readonly controlTokens: ReadonlyMap<string, number>;
  /** Tokens that are found as a whole before anything else, also in literal text. */
  readonly wholeTokens: ReadonlyMap<string, number>;
  /** Ids of text without any of these. */
  encodeOrdinary(text: string): number[];
}

/** The tokenizer of a vocabulary. @throws Error if one of the ids it names is none of its own */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { pieces, bosId, eosId, padId, strippedSpaces, controlTokens, wholeTokens } = vocabulary;
  for (const [name, id] of Object.entries({ bosId, eosId, padId })) {
    if (id !== undefined && pieces[id] === undefined) {
      throw new Error(`${name} is ${id}, but the vocabulary has ids 0 to ${pieces.length - 1}`);
    }
  }
  const anywhere = finder(wholeTokens);
  const inTrusted = finder(new Map([...controlTokens, ...wholeTokens]));

  function piece(id: number): Piece {
    const found = pieces[id];
    if (found === undefined) {
      throw new RangeError(`${id} is no token id; this vocabulary has ids 0 to ${pieces.length - 1}`);
    }
    return found;
  }

  return {
    vocabSize: pieces.length,
    bosId,
    eosId,
    padId,
    strippedSpaces,
    encode(text, { bos = false } = {}) {
      const ids = bos && bosId !== undefined ? [bosId] : [];
      let run = "";
      const finishRun = () => {
        if (run !== "") append(ids, vocabulary.encodeOrdinary(run));
        run = "";
      };
      for (const part of typeof text === "string" ? [{ text }] : text) {
        for (const found of (part.literal ? anywhere : inTrusted)(part.text)) {
          if (typeof found === "string") {
            run += found;
          } else {
            finishRun();
            ids.push(found);
          }
        }
      }
      finishRun();
      return ids;
    },
    decode(ids, { skipSpecial = false } = {}) {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      let text = "";
      for (const id of ids) {
        const { bytes, control } = piece(id);
        if (!(control && skipSpecial)) text += decoder.decode(bytes, { stream: true });
      }
      return stripSpaces(text + decoder.decode(), strippedSpaces);
    },
    bytesOf(id) {
      const { bytes, control } = piece(id);
      return control ? noBytes : bytes;
    },
  };
}

const noBytes = new Uint8Array(0);

/** The text without its leading spaces, but at most `limit` of them. */
export function stripSpaces(text: string, limit: number): string {
  let spaces = 0;
  while (spaces < limit && text[spaces] === " ") spaces++;
  return text.slice(spaces);
}

/** Appends without spreading, which fails for very long arrays. */
function append(ids: number[], more: readonly number[]): void {
  for (const id of more) ids.push(id);
}

/** Cuts a text into tokens of the map and the text between them. */
function finder(tokens: ReadonlyMap<string, number>): (text: string) => (string | number)[] {
  const texts = alternatives(tokens.keys());
  if (texts.length === 0) return (text) => [text];
  const pattern = new RegExp(`(${texts.join("|")})`, "u");
  return (text) => text.split(pattern).map((part, i) => (i % 2 === 1 ? (tokens.get(part) ?? part) : part));
}

/** The texts (but no empty one) as alternatives of a regular expression, the longest first, so that it is matched. */
export function alternatives(texts: Iterable<string>): string[] {
  return [...texts]
    .filter((text) => text !== "")
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
}
