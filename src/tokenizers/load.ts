/** Loads tokenizers from the files of a model. */
import { access, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import { parseSentencePieceModel } from "./sentencepiece-model.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { tokenizerFromJson } from "./tokenizer-json.ts";

export { tokenizerFromGguf } from "./gguf.ts";
export type { Tokenizer } from "./tokenizer.ts";

/**
 * Loads the tokenizer of a model folder: its `tokenizer.json` if it has one, else its `tokenizer.model`.
 * @throws Error if the folder has neither, or the file is damaged or not supported
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const json = join(folder, "tokenizer.json");
  if (await exists(json)) return loadTokenizerJson(json);
  const model = join(folder, "tokenizer.model");
  if (await exists(model)) return loadSentencePiece(model);
  throw new Error(`${folder} has no tokenizer; expected tokenizer.json or tokenizer.model`);
}

/**
 * Loads a `tokenizer.model` file.
 * @throws Error naming the file if it cannot be read, is damaged, or is not byte-pair encoding with byte fallback
 */
export async function loadSentencePiece(path: string): Promise<Tokenizer> {
  const bytes = await readFile(path);
  try {
    return sentencePieceTokenizer(parseSentencePieceModel(bytes));
  } catch (cause) {
    throw new Error(`${path}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

async function loadTokenizerJson(path: string): Promise<Tokenizer> {
  const configPath = join(dirname(path), "tokenizer_config.json");
  return tokenizerFromJson(
    { path, text: await readFile(path, "utf8") },
    { path: configPath, text: await readFile(configPath, "utf8") },
  );
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
