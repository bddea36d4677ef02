/** Text from token ids that arrive one at a time. */
import { stripSpaces, type Tokenizer } from "./tokenizer.ts";

/**
 * Turns token ids into pieces of whole characters. The bytes of one character can be spread over several tokens; they
 * are held back until it is complete. All pieces together are `tokenizer.decode(ids, { skipSpecial: true })`.
 */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #spacesToStrip: number;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    this.#spacesToStrip = tokenizer.strippedSpaces;
  }

  /** The text that this token completes; empty while a character is unfinished, and for a control token. */
  push(id: number): string {
    return this.#withoutLeadingSpaces(this.#decoder.decode(this.#tokenizer.bytesOf(id), { stream: true }));
  }

  /** What is left at the end: U+FFFD if the last character is unfinished, else nothing. */
  flush(): string {
    return this.#withoutLeadingSpaces(this.#decoder.decode());
  }

  #withoutLeadingSpaces(text: string): string {
    const rest = stripSpaces(text, this.#spacesToStrip);
    this.#spacesToStrip = rest === "" ? this.#spacesToStrip - text.length : 0;
    return rest;
  }
}
