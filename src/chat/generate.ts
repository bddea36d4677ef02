/** Writing one answer by itself, token by token, as a stream of text. */
import type { Random } from "../tensor/random.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { AnswerWriter, type Ending, type WritingOptions } from "./answer-writer.ts";
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel } from "./language-model.ts";
import type { Position } from "./reading-feeds.ts";

export interface GenerateOptions extends WritingOptions {
  readonly signal?: AbortSignal;
}

/**
 * The answer to a prompt, in pieces of whole characters.
 *
 * @param cache may already hold the start of the conversation; `prompt` is what follows it
 */
export async function* generate(
  model: Pick<LanguageModel, "read">,
  tokenizer: Tokenizer,
  prompt: readonly Position[],
  cache: KVCache,
  options: GenerateOptions,
  random: Random,
): AsyncGenerator<string, Ending> {
  const writer = new AnswerWriter(tokenizer, options, random);
  let next: readonly Position[] = prompt;
  for (;;) {
    options.signal?.throwIfAborted();
    const scores = await model.read([next], cache);
    const written = writer.take(scores.data);
    if (written.text) yield written.text;
    if (written.ending) return written.ending;
    next = [written.id];
  }
}
