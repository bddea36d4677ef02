/**
 * The decoding loop. A {@link Decoder} chooses the next tokens of one generation from its logits: by sampling
 * ({@link SamplingDecoder}) or by beam search (`beam-search.ts`). A {@link Batch} advances several generations by one token per
 * forward pass; the scheduler of `engine/` and {@link decode}, which runs one generation by itself, both use it.
 */

import type { Random } from "../tensor/random.ts";
import { TextStream } from "../tokenizers/decode-stream.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { type Prompt, tokenizePrompt } from "../tokenizers/prompts.ts";
import type { ImageTokens } from "./image-encoder.ts";
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel, Position } from "./language-model.ts";
import { type SamplingOptions, sampleToken } from "./sampling.ts";
import { StopFilter } from "./stop-filter.ts";

/** Why a generation ended: `"stop"` at the end-of-sequence token or a stop string, `"length"` at its token limit. */
export type FinishReason = "stop" | "length";

export interface DecodingOptions extends SamplingOptions {
  /** At least 1. */
  readonly maxNewTokens: number;
  /** The text ends before any of these strings; they may span tokens. */
  readonly stop?: readonly string[];
}

export interface Finish {
  readonly reason: FinishReason;
  /** Number of generated tokens, without the end-of-sequence token. */
  readonly tokens: number;
}

/** A token to append to the sequence in row `parent`. */
export interface NextToken {
  readonly parent: number;
  readonly id: number;
}

/** Chooses the tokens of one generation, which has one sequence, or several (beam search). */
export interface Decoder {
  /**
   * @param logits [sequences, vocabSize] of the last position of each sequence; may be changed in place
   * @returns the sequences to continue; none when the generation is finished
   */
  next(logits: Float32Array): readonly NextToken[];
}

/** Samples (or takes greedily) the tokens of one sequence and turns them into text. */
export class SamplingDecoder implements Decoder {
  /** Generated token ids. */
  readonly ids: number[] = [];
  private readonly tokenizer: Tokenizer;
  private readonly options: DecodingOptions;
  private readonly random: Random;
  private readonly stream: TextStream;
  private readonly filter: StopFilter;
  private text = "";
  private finished: Finish | undefined;

  constructor(tokenizer: Tokenizer, options: DecodingOptions, random: Random) {
    this.tokenizer = tokenizer;
    this.options = options;
    this.random = random;
    this.stream = new TextStream(tokenizer);
    this.filter = new StopFilter(options.stop ?? []);
  }

  /** Why and where the generation ended; undefined while it is running. */
  get finish(): Finish | undefined {
    return this.finished;
  }

  next(logits: Float32Array): readonly NextToken[] {
    // The model may have more rows than the tokenizer has tokens.
    const id = sampleToken(logits.subarray(0, this.tokenizer.vocabSize), this.options, {
      random: this.random,
      previous: this.ids,
    });
    if (id === this.tokenizer.eosId) return this.end("stop");
    this.ids.push(id);
    this.text += this.filter.push(this.stream.push(id));
    if (this.filter.stopped) return this.end("stop");
    if (this.ids.length >= this.options.maxNewTokens) return this.end("length");
    return [{ parent: 0, id }];
  }

  /** The text since the last call, in whole characters; may be empty. */
  takeText(): string {
    const { text } = this;
    this.text = "";
    return text;
  }

  private end(reason: FinishReason): readonly NextToken[] {
    this.text += this.filter.push(this.stream.flush()) + this.filter.flush();
    this.finished = { reason, tokens: this.ids.length };
    return [];
  }
}

/** The part of a language model that decoding needs. */
type ForwardModel = Pick<LanguageModel, "forward">;

interface Entry<D extends Decoder> {
  readonly decoder: D;
  /** The chosen token of each of its sequences, not yet in the cache. */
  ids: readonly number[];
}

/**
 * Generations that advance together, one token of each per forward pass, because reading the weights costs more than the
 * arithmetic of a few rows. A decoder of several sequences has a batch to itself, as its rows are reordered at every step.
 */
export class Batch<D extends Decoder> {
  private readonly model: ForwardModel;
  /** Its sequences are in the order of the entries. */
  private cache: KVCache | undefined;
  private entries: Entry<D>[] = [];

  constructor(model: ForwardModel) {
    this.model = model;
  }

  get decoders(): readonly D[] {
    return this.entries.map(({ decoder }) => decoder);
  }

  /** Whether the batch has taken over this cache, which must not be used elsewhere then. */
  uses(cache: KVCache): boolean {
    return this.cache === cache;
  }

  /**
   * Chooses the first tokens after a prompt and adds the generation, unless it is finished already.
   *
   * @param logits [1, vocabSize] of what follows the prompt; may be changed in place
   * @param cache the prompt's. It is copied, or taken over if `takesCache` and the batch is empty
   */
  add(decoder: D, logits: Float32Array, { cache, takesCache }: { cache: KVCache; takesCache: boolean }): void {
    const next = decoder.next(logits);
    if (next.length === 0) return;
    if (!this.cache || this.entries.length === 0) {
      this.cache = takesCache && next.length === 1 ? cache : cache.select(next.map(({ parent }) => parent));
    } else {
      this.cache.push(cache);
    }
    this.entries.push({ decoder, ids: next.map(({ id }) => id) });
  }

  /** One forward pass and one token for every sequence. @returns the generations that finished, with the cache of each */
  async step(): Promise<{ readonly decoder: D; readonly cache: KVCache }[]> {
    const { cache } = this;
    if (!cache || this.entries.length === 0) return [];
    const tokens = this.entries.flatMap(({ ids }) => ids.map((id) => [id]));
    const { data } = await this.model.forward(tokens, cache);
    const rowLength = data.length / this.entries.length;
    const finished: { decoder: D; cache: KVCache }[] = [];
    const advance = this.entries.map(({ decoder }, i) =>
      decoder.next(data.subarray(i * rowLength, (i + 1) * rowLength)),
    );
    // From the last one, because a removed row is replaced by the last.
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const entry = this.entries[i] as Entry<D>;
      const next = advance[i] as readonly NextToken[];
      if (next.length === 0) {
        finished.push({ decoder: entry.decoder, cache: this.removeAt(i) });
      } else {
        if (next.length > 1 || entry.ids.length > 1) this.cache = cache.select(next.map(({ parent }) => parent));
        entry.ids = next.map(({ id }) => id);
      }
    }
    return finished;
  }

  /** Removes a generation. @returns the cache of its (first) sequence */
  remove(decoder: D): KVCache {
    return this.removeAt(this.entries.findIndex((entry) => entry.decoder === decoder));
  }

  /** Removes all generations and their cache. */
  clear(): void {
    this.entries = [];
    this.cache = undefined;
  }

  private removeAt(index: number): KVCache {
    const { cache } = this;
    const removed = this.entries[index];
    if (!cache || !removed) throw new RangeError("The generation is not in this batch");
    const last = this.entries.pop() as Entry<D>;
    if (index < this.entries.length) this.entries[index] = last;
    const taken = cache.take(index);
    if (this.entries.length === 0) this.cache = undefined;
    return taken;
  }
}

/** What a generation by itself runs on. */
export interface DecodingContext {
  readonly model: ForwardModel;
  /** Of one sequence; may already hold the beginning of the conversation, which the prompt continues. */
  readonly cache: KVCache;
  readonly signal?: AbortSignal;
}

/** Runs one generation by itself: the prompt, then token by token. Yields after every step, also after the last. */
export async function* decode(
  decoder: Decoder,
  prompt: readonly Position[],
  { model, cache, signal }: DecodingContext,
): AsyncGenerator<void, void> {
  signal?.throwIfAborted();
  const batch = new Batch(model);
  batch.add(decoder, (await model.forward([prompt], cache)).data, { cache, takesCache: true });
  for (;;) {
    yield;
    if (batch.decoders.length === 0) return;
    signal?.throwIfAborted();
    await batch.step();
  }
}

export interface GenerateContext extends DecodingContext {
  readonly tokenizer: Tokenizer;
  readonly random: Random;
}

/** The generated text after a prompt, streamed in pieces of whole characters. */
export async function* generate(
  prompt: readonly Position[],
  options: DecodingOptions,
  { tokenizer, random, ...context }: GenerateContext,
): AsyncGenerator<string, Finish> {
  const decoder = new SamplingDecoder(tokenizer, options, random);
  for await (const _ of decode(decoder, prompt, context)) {
    const text = decoder.takeText();
    if (text) yield text;
  }
  return decoder.finish as Finish;
}

/** A prompt as a sequence of positions: token ids, and the image tokens of each image where it is placed. */
export function toPositions(prompt: Prompt, images: readonly ImageTokens[], tokenizer: Tokenizer): Position[] {
  return tokenizePrompt(prompt, tokenizer).flatMap((piece): readonly Position[] => {
    if ("ids" in piece) return piece.ids;
    const tokens = images[piece.image];
    if (!tokens) throw new Error(`The prompt places image ${piece.image + 1}, but only ${images.length} were given`);
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
