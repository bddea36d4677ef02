/** The tokenizer interface, and its implementation over a vocabulary of pieces. */

/** A part of a text. In a `literal` part (user input) control tokens are not recognized. */
export interface TextPart {
  readonly text: string;
  readonly literal?: boolean;
}

export interface Tokenizer {
  /** Number of token ids; they run from 0. */
  readonly vocabSize: number;
  /** Beginning-of-sequence token; undefined if the model uses none. */
  readonly bosId?: number;
  /** End-of-sequence token. */
  readonly eosId: number;
  /** Padding token, for the shorter sequences of a batch; never a target. */
  readonly padId: number;
  /** Leading spaces that decoding strips, at most: encoding puts one before the text (SentencePiece). */
  readonly strippedSpaces: number;
  /**
   * Token ids of a text, or of parts that are encoded as one text. Control tokens written in it (`<|im_start|>`, `</s>`) are
   * recognized, except in literal parts. With `bos` (default false) `bosId` comes first.
   */
  encode(text: string | readonly TextPart[], options?: { bos?: boolean }): number[];
  /**
   * The text of token ids. Invalid UTF-8 becomes U+FFFD. Control tokens are written out, or omitted with `skipSpecial`.
   * @throws RangeError if an id is not in the vocabulary
   */
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  /** The UTF-8 bytes of a token, possibly part of a character; empty for a control token. */
  tokenBytes(id: number): Uint8Array;
}

/** A token: its bytes, and whether it is a control token, which has no text. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly control: boolean;
}

/** The parts in which tokenizers differ. */
export interface Vocabulary extends Pick<Tokenizer, "bosId" | "eosId" | "padId" | "strippedSpaces"> {
  /** Tokens by id. */
  readonly pieces: readonly Piece[];
  /** Ids of control tokens by their text. */
  readonly controlTokens: ReadonlyMap<string, number>;
  /** Ids of tokens that are matched as a whole before anything else, also in literal text. */
  readonly wholeTokens: ReadonlyMap<string, number>;
  /** Encodes text that contains none of these. */
  encodeOrdinary(text: string): number[];
}

/** Creates a tokenizer. @throws Error if a special id is not in the vocabulary */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { pieces, bosId, eosId, padId, strippedSpaces, controlTokens, wholeTokens } = vocabulary;
  for (const [name, id] of Object.entries({ bosId, eosId, padId })) {
    if (id !== undefined && pieces[id] === undefined) {
      throw new Error(`${name} is ${id}, but the vocabulary has ids 0 to ${pieces.length - 1}`);
    }
  }
  const splitLiteral = createSplitter(wholeTokens);
  const splitTemplate = createSplitter(new Map([...controlTokens, ...wholeTokens]));

  function piece(id: number): Piece {
    const found = pieces[id];
    if (found === undefined) {
      throw new RangeError(`token id ${id} is not in the vocabulary, which has ids 0 to ${pieces.length - 1}`);
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
        for (const found of (part.literal ? splitLiteral : splitTemplate)(part.text)) {
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
    tokenBytes(id) {
      const { bytes, control } = piece(id);
      return control ? noBytes : bytes;
    },
  };
}

const noBytes = new Uint8Array(0);

/** Strips leading spaces, at most `limit` of them. */
export function stripSpaces(text: string, limit: number): string {
  let spaces = 0;
  while (spaces < limit && text[spaces] === " ") spaces++;
  return text.slice(spaces);
}

/** Appends in a loop, because spreading a very long array into `push` overflows the stack. */
function append(ids: number[], more: readonly number[]): void {
  for (const id of more) ids.push(id);
}

/** A function that splits a text at the given tokens, into their ids and the text between them. */
function createSplitter(tokens: ReadonlyMap<string, number>): (text: string) => (string | number)[] {
  const texts = alternatives(tokens.keys());
  if (texts.length === 0) return (text) => [text];
  const pattern = new RegExp(`(${texts.join("|")})`, "u");
  return (text) => text.split(pattern).map((part, i) => (i % 2 === 1 ? (tokens.get(part) ?? part) : part));
}

/** Escapes texts for the alternatives of a regular expression, longest first so that the longest match wins. Empty texts are omitted. */
export function alternatives(texts: Iterable<string>): string[] {
  return [...texts]
    .filter((text) => text !== "")
    .sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
}
