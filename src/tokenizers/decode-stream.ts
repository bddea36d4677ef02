/** Streaming decode: text from token ids that arrive one at a time. */
import { stripSpaces, type Tokenizer } from "./tokenizer.ts";

/**
 * Decodes token ids into text of whole characters. Bytes of a character that spans several tokens are buffered until it
 * is complete. All returned texts joined are `tokenizer.decode(ids, { skipSpecial: true })`.
 */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #spacesToStrip: number;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    this.#spacesToStrip = tokenizer.strippedSpaces;
  }

  /** The text that this token completes; empty while a character is incomplete, and for a control token. */
  push(id: number): string {
    return this.#withoutLeadingSpaces(this.#decoder.decode(this.#tokenizer.tokenBytes(id), { stream: true }));
  }

  /** The rest at the end: U+FFFD if the last character is incomplete, else empty. */
  flush(): string {
    return this.#withoutLeadingSpaces(this.#decoder.decode());
  }

  #withoutLeadingSpaces(text: string): string {
    const rest = stripSpaces(text, this.#spacesToStrip);
    this.#spacesToStrip = rest === "" ? this.#spacesToStrip - text.length : 0;
    return rest;
  }
}
