/** Writing one answer by itself, token by token, as a stream of text. */

import type { Random } from "../tensor/random.ts";
import { TextStream } from "../tokenizers/decode-stream.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { type Prompt, tokenizePrompt } from "../tokenizers/prompts.ts";
import type { ImageTokens } from "./image-encoder.ts";
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel, Position } from "./language-model.ts";
import { chooseToken, type SamplingOptions } from "./sampling.ts";

/** Cuts a stream of text before the first stop string, also where the stop string arrives in parts. */
export class StopFilter {
  private readonly stops: readonly string[];
  private held = "";
  private found = false;

  constructor(stops: readonly string[]) {
    this.stops = stops.filter((stop) => stop !== "");
  }

  /** Whether a stop string has arrived; nothing comes out after it. */
  get stopped(): boolean {
    return this.found;
  }

  /** Text that surely lies before any stop string; what may be the beginning of one is held back. */
  push(text: string): string {
    if (this.found) return "";
    this.held += text;
    const cut = this.firstStop();
    if (cut !== undefined) {
      this.found = true;
      return this.take(cut);
    }
    return this.take(this.held.length - this.possibleStart());
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    return this.found ? "" : this.take(this.held.length);
  }

  /** Where the stop string begins that is complete first: the result does not depend on how the text is cut up. */
  private firstStop(): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.stops) {
      const start = this.held.indexOf(stop);
      const end = start + stop.length;
      if (start < 0 || (first && (end > first.end || (end === first.end && start > first.start)))) continue;
      first = { start, end };
    }
    return first?.start;
  }

  private take(length: number): string {
    const text = this.held.slice(0, length);
    this.held = this.found ? "" : this.held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text that begins a stop string. */
  private possibleStart(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.held.length); length > 0; length--) {
      const end = this.held.slice(-length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}

// One answer while it is written: scores become a token, tokens become text, until the answer ends.

/** An answer ends by itself or at a stop text, or because it has reached its greatest length. */
export type FinishReason = "stop" | "length";

export interface WritingOptions extends SamplingOptions {
  /** At least 1. */
  readonly maxNewTokens: number;
  /** The answer ends before any of these; they may span tokens. */
  readonly stop?: readonly string[];
}

export interface Ending {
  readonly reason: FinishReason;
  /** How many tokens were written, the end-of-sequence token not counted. */
  readonly tokens: number;
}

/** What one more token brings: whole characters, maybe none; and either the token, which is to be read next, or the end. */
export type Written =
  | { readonly text: string; readonly id: number; readonly ending?: undefined }
  | { readonly text: string; readonly ending: Ending };

export class AnswerWriter {
  private readonly tokenizer: Tokenizer;
  private readonly options: WritingOptions;
  private readonly random: Random;
  private readonly text: TextStream;
  private readonly filter: StopFilter;
  private readonly said: number[] = [];

  constructor(tokenizer: Tokenizer, options: WritingOptions, random: Random) {
    this.tokenizer = tokenizer;
    this.options = options;
    this.random = random;
    this.text = new TextStream(tokenizer);
    this.filter = new StopFilter(options.stop ?? []);
  }

  /** @param scores [vocabSize] of what follows; changed in place. A model may have more rows than there are tokens: these are never said */
  take(scores: Float32Array): Written {
    const known = scores.subarray(0, this.tokenizer.vocabSize);
    const id = chooseToken(known, this.said, this.options, this.random);
    if (id === this.tokenizer.eosId) return this.end("", "stop");
    this.said.push(id);
    const text = this.filter.push(this.text.push(id));
    if (this.filter.stopped) return { text, ending: { reason: "stop", tokens: this.said.length } };
    return this.said.length < this.options.maxNewTokens ? { text, id } : this.end(text, "length");
  }

  private end(text: string, reason: FinishReason): Written {
    const rest = this.filter.push(this.text.flush()) + this.filter.flush();
    return { text: text + rest, ending: { reason, tokens: this.said.length } };
  }
}

export interface GenerateOptions extends WritingOptions {
  readonly signal?: AbortSignal;
}

/**
 * The answer to a prompt, in pieces of whole characters.
 *
 * @param cache may already hold the start of the conversation; `prompt` is what follows it
 */
export async function* generate(
  model: Pick<LanguageModel, "forward">,
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
    const scores = await model.forward([next], cache);
    const written = writer.take(scores.data);
    if (written.text) yield written.text;
    if (written.ending) return written.ending;
    next = [written.id];
  }
}

// A prompt as a language model reads it: a sequence of positions.

/** Token ids, and the image tokens of each image at its place. */
export function toPositions(prompt: Prompt, images: readonly ImageTokens[], tokenizer: Tokenizer): Position[] {
  return tokenizePrompt(prompt, tokenizer).flatMap((piece): readonly Position[] => {
    if ("ids" in piece) return piece.ids;
    const tokens = images[piece.image];
    if (!tokens)
      throw new Error(`The prompt has a place for image ${piece.image + 1}, but ${images.length} were given`);
    return tokens;
  });
}

/**
 * The end of a sequence that leaves room for `maxNewTokens` within `maxLength` positions: the oldest positions are
 * dropped from the front, as in the original demo.
 */
export function truncateToContext(
  sequence: readonly Position[],
  maxNewTokens: number,
  maxLength: number,
): readonly Position[] {
  return sequence.slice(Math.max(0, sequence.length + maxNewTokens - maxLength));
}
