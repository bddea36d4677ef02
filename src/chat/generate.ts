/** Writing an answer token by token: greedy or sampled, with stop strings, as a stream of text. */
import type { Random } from "../tensor/random.ts";
import { TextStream } from "../text/decode-stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { EndReason } from "./engine/engine.ts";
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel } from "./language-model.ts";
import type { Position } from "./reading-graph.ts";
import { chooseToken, type SamplingOptions } from "./sampling.ts";
import { StopFilter } from "./stop-filter.ts";

export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  /** The answer ends before any of these; they may span tokens. */
  readonly stop?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface Ending {
  readonly reason: EndReason;
  /** How many tokens were written, the end-of-sequence token not counted. */
  readonly tokens: number;
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
  const text = new TextStream(tokenizer);
  const filter = new StopFilter(options.stop ?? []);
  const said: number[] = [];
  let next: readonly Position[] = prompt;
  while (said.length < options.maxNewTokens) {
    options.signal?.throwIfAborted();
    const scores = await model.read([next], cache);
    const id = chooseToken(scores.data, said, options, random);
    if (id === tokenizer.eosId) break;
    said.push(id);
    const piece = filter.push(text.push(id));
    if (piece) yield piece;
    if (filter.stopped) return { reason: "stop", tokens: said.length };
    next = [id];
  }
  const rest = filter.push(text.flush()) + filter.flush();
  if (rest) yield rest;
  return { reason: said.length < options.maxNewTokens ? "stop" : "length", tokens: said.length };
}
