/** Tokenizers from the files that models come with. */

import { access } from "node:fs/promises";
import { join } from "node:path";
import { loadSentencePiece } from "./sentencepiece.ts";
import { loadTokenizerJson } from "./tokenizer-json.ts";
import type { Tokenizer } from "./vocabulary.ts";

export { tokenizerFromGguf } from "./gguf-tokenizer.ts";
export { loadSentencePiece } from "./sentencepiece.ts";
export type { Tokenizer } from "./vocabulary.ts";

/**
 * The tokenizer of a model folder: its `tokenizer.json` if there is one, else its `tokenizer.model`.
 * @throws Error if there is neither, or the one there cannot be used
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const json = join(folder, "tokenizer.json");
  if (await exists(json)) return loadTokenizerJson(json);
  const model = join(folder, "tokenizer.model");
  if (await exists(model)) return loadSentencePiece(model);
  throw new Error(`${folder} has no tokenizer: neither tokenizer.json nor tokenizer.model is there`);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
