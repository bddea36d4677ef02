/**
 * Byte-level byte-pair encoding (GPT-2 and after): a text is first cut into words and numbers, and every byte is a
 * character of its own, so nothing is unknown. The merging is done by @huggingface/tokenizers.
 */

import { Tokenizer as Engine } from "@huggingface/tokenizers";

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
