/** A tokenizer as one JSON value, built from the files of a language model, for the web page. */
import { z } from "zod";
import { tokenizerFromGguf } from "./gguf.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import { parseSentencePieceModel } from "./sentencepiece-model.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { tokenizerFromJson } from "./tokenizer-json.ts";

const schema = z.discriminatedUnion("kind", [
  /** The keys `tokenizer.ggml.*` of a GGUF file. */
  z.object({ kind: z.literal("gguf"), metadata: z.record(z.string(), z.unknown()) }),
  /** The texts of `tokenizer.json` and `tokenizer_config.json`. */
  z.object({ kind: z.literal("json"), tokenizer: z.string(), config: z.string() }),
  /** The bytes of `tokenizer.model` in base64. */
  z.object({ kind: z.literal("sentencepiece"), model: z.base64() }),
]);

export type PackedTokenizer = z.infer<typeof schema>;

/** Parses the JSON of a tokenizer. @throws Error naming the field that is wrong */
export function parsePackedTokenizer(json: unknown): Tokenizer {
  const { data, error } = schema.safeParse(json);
  if (!data) throw new Error(`The tokenizer is damaged. Export the model again:\n${z.prettifyError(error)}`);
  if (data.kind === "gguf") return tokenizerFromGguf(data.metadata);
  if (data.kind === "json") {
    const file = (path: string, text: string) => ({ path, text });
    return tokenizerFromJson(file("tokenizer.json", data.tokenizer), file("tokenizer_config.json", data.config));
  }
  return sentencePieceTokenizer(
    parseSentencePieceModel(Uint8Array.from(atob(data.model), (character) => character.charCodeAt(0))),
  );
}
