/** Whether a tokenizer is the one that a language model was trained with, as far as that shows without reading. */
import type { LlamaConfig } from "../../models/llama.ts";
import type { PromptTemplate } from "../../text/prompts.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import type { Findings } from "./finding.ts";

const remedy = "Take the tokenizer's files from the folder that the language model came in.";

/** Texts that every tokenizer gives back as they were. */
const texts = ["The quick brown fox, 1234567890!", "Ünïcödé, 東京, Ελλάδα", "a smile: \u{1f642}"];

/** Tables are often filled up to a round number of rows; more than this share is another vocabulary. */
const largestFilling = 0.1;

/** What a template writes and a tokenizer should know as one token. */
const controlTokens: Readonly<Record<PromptTemplate["name"], readonly string[]>> = {
  "vicuna-v0": [],
  "llama-2": ["<s>"],
  chatml: ["<|im_start|>", "<|im_end|>"],
  plain: [],
};

export function checkTokenizer(
  findings: Findings,
  tokenizer: Tokenizer,
  { vocabSize }: LlamaConfig,
  template: PromptTemplate["name"],
  /** What the language model's own config says of its special tokens. */
  special: { readonly bos_token_id?: unknown; readonly eos_token_id?: unknown },
): void {
  const fault = (what: string, cure = remedy) => findings.fault("tokenizer", what, cure);
  if (tokenizer.vocabSize > vocabSize) {
    fault(`The tokenizer has ${tokenizer.vocabSize} tokens, but the language model only ${vocabSize} embeddings`);
  } else if (tokenizer.vocabSize < (1 - largestFilling) * vocabSize) {
    fault(
      `The tokenizer has ${tokenizer.vocabSize} tokens, but the language model ${vocabSize} embeddings: it is another model's`,
    );
  }
  for (const text of texts) {
    const back = tokenizer.decode(tokenizer.encode(text));
    if (back !== text) fault(`The tokenizer makes ${JSON.stringify(back)} of ${JSON.stringify(text)}`);
  }
  for (const [key, own] of [
    ["bos_token_id", tokenizer.bosId],
    ["eos_token_id", tokenizer.eosId],
  ] as const) {
    const claimed = special[key];
    if (typeof claimed === "number" && own !== undefined && claimed !== own) {
      fault(`The language model's config.json says ${key} ${claimed}, but the tokenizer has ${own}`);
    }
  }
  for (const token of controlTokens[template]) {
    if (tokenizer.encode(token).length === 1) continue;
    fault(
      `Conversations are written as ${template}, but the tokenizer does not know ${token}`,
      `Set "prompt_template" in config.json to the form that the language model was trained with.`,
    );
  }
}
