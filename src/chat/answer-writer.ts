/** One answer while it is written: scores become a token, tokens become text, until the answer ends. */
import type { Random } from "../tensor/random.ts";
import { TextStream } from "../text/decode-stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { EndReason } from "./engine/engine.ts";
import { chooseToken, type SamplingOptions } from "./sampling.ts";
import { StopFilter } from "./stop-filter.ts";

export interface WritingOptions extends SamplingOptions {
  /** At least 1. */
  readonly maxNewTokens: number;
  /** The answer ends before any of these; they may span tokens. */
  readonly stop?: readonly string[];
}

export interface Ending {
  readonly reason: EndReason;
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

  private end(text: string, reason: EndReason): Written {
    const rest = this.filter.push(this.text.flush()) + this.filter.flush();
    return { text: text + rest, ending: { reason, tokens: this.said.length } };
  }
}
