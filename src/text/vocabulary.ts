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
  /** Whether a text is encoded with a space before it, which decoding takes away again (SentencePiece). */
  readonly addsLeadingSpace: boolean;
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
export interface Vocabulary extends Pick<Tokenizer, "vocabSize" | "bosId" | "eosId" | "padId" | "addsLeadingSpace"> {
  /** The token of an id below `vocabSize`. */
  piece(id: number): Piece;
  /** Control tokens by the text that is recognised as such. */
  readonly controlTokens: ReadonlyMap<string, number>;
  /** Tokens that are found as a whole before anything else, also in literal text. */
  readonly wholeTokens: ReadonlyMap<string, number>;
  /** Ids of text without any of these. */
  encodeOrdinary(text: string): number[];
}

/** The tokenizer of a vocabulary. */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { vocabSize, bosId, eosId, padId, addsLeadingSpace, controlTokens, wholeTokens } = vocabulary;
  const anywhere = finder(wholeTokens);
  const inTrusted = finder(new Map([...controlTokens, ...wholeTokens]));

  function piece(id: number): Piece {
    if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) {
      throw new RangeError(`${id} is no token id; this vocabulary has ids 0 to ${vocabSize - 1}`);
    }
    return vocabulary.piece(id);
  }

  return {
    vocabSize,
    bosId,
    eosId,
    padId,
    addsLeadingSpace,
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
      const chunks = ids.map((id) => {
        const { bytes, control } = piece(id);
        return control && skipSpecial ? noBytes : bytes;
      });
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(chunks));
      return addsLeadingSpace && text.startsWith(" ") ? text.slice(1) : text;
    },
    bytesOf(id) {
      const { bytes, control } = piece(id);
      return control ? noBytes : bytes;
    },
  };
}

const noBytes = new Uint8Array(0);

/** Appends without spreading, which fails for very long arrays. */
function append(ids: number[], more: readonly number[]): void {
  for (const id of more) ids.push(id);
}

/** Cuts a text into tokens of the map and the text between them. */
function finder(tokens: ReadonlyMap<string, number>): (text: string) => (string | number)[] {
  if (tokens.size === 0) return (text) => [text];
  const pattern = new RegExp(`(${alternatives(tokens.keys())})`, "u");
  return (text) => text.split(pattern).map((part, i) => (i % 2 === 1 ? (tokens.get(part) ?? part) : part));
}

/** A regular expression's source that matches any of the texts, the longest that fits. */
export function alternatives(texts: Iterable<string>): string {
  return [...texts]
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"))
    .join("|");
}
