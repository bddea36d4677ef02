/** A LLaMA that is ready to read and write: one session, and caches of what was read. */

import type { LlamaConfig } from "../models/llama.ts";
import type { NdArray } from "../tensor/array.ts";
import type { Runner } from "../tensor/runner.ts";
import { KVCache } from "./kv-cache.ts";
import { indices, type Position, readingFeeds } from "./reading-feeds.ts";

/** A faster way to read many positions. */
export interface PromptReader {
  /** Reads new positions of the cache's one sequence, which it grows by; the scores of what follows the last one, [1, vocabSize]. */
  read(sequence: readonly Position[], cache: KVCache): Promise<NdArray<"float32">>;
  /** As `read`, where nobody wants the scores. */
  fill(sequence: readonly Position[], cache: KVCache): Promise<void>;
  release(): Promise<void>;
}

/** For more positions than these a prompt reader is faster than the language model itself. */
const promptFrom = 64;

export class LanguageModel {
  readonly config: LlamaConfig;
  private readonly runner: Runner;
  private readonly prompts: PromptReader | undefined;

  /**
   * @param runner a reading graph with the output `logits`, of the places in `wanted`
   * @param prompts reads long prompts
   */
  constructor(config: LlamaConfig, runner: Runner, prompts?: PromptReader) {
    this.config = config;
    this.runner = runner;
    this.prompts = prompts;
  }

  newCache(batch = 1): KVCache {
    const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = this.config;
    return new KVCache({ layers, kvHeads, headDim }, batch);
  }

  /**
   * Reads new positions of each sequence after those in the cache, which grows by them.
   *
   * @param sequences one for each sequence of the cache, all of the same length
   * @returns scores [batch, vocabSize] of what follows the last position; with `all`, [batch * length, vocabSize]
   * @throws RangeError if the model does not know that many positions
   */
  async read(
    sequences: readonly (readonly Position[])[],
    cache: KVCache,
    which: "last" | "all" = "last",
  ): Promise<NdArray<"float32">> {
    const batch = sequences.length;
    const length = sequences[0]?.length ?? 0;
    this.checkLengths(sequences, cache, length);
    const [sequence = [], ...others] = sequences;
    const prompts = which === "last" && others.length === 0 ? this.promptReader(sequence) : undefined;
    if (prompts) return prompts.read(sequence, cache);
    const wanted = Array.from({ length: batch * (which === "all" ? length : 1) }, (_, i) =>
      which === "all" ? i : (i + 1) * length - 1,
    );
    const outputs = await this.runner.run({
      ...readingFeeds(sequences, cache, this.config),
      wanted: indices([wanted.length], wanted),
    });
    cache.append(outputs, length);
    return outputs.logits as NdArray<"float32">;
  }

  /** Reads new positions of the cache's one sequence, which grows by them, where nobody wants the scores. */
  async fill(sequence: readonly Position[], cache: KVCache): Promise<void> {
    this.checkLengths([sequence], cache, sequence.length);
    const prompts = this.promptReader(sequence);
    if (prompts) await prompts.fill(sequence, cache);
    else await this.read([sequence], cache);
  }

  async release(): Promise<void> {
    await this.runner.release();
    await this.prompts?.release();
  }

  private promptReader({ length }: readonly Position[]): PromptReader | undefined {
    return length > promptFrom ? this.prompts : undefined;
  }

  private checkLengths(sequences: readonly (readonly Position[])[], cache: KVCache, length: number): void {
    if (length === 0) throw new RangeError("There is nothing to read: the sequence is empty");
    if (sequences.length !== cache.batch || sequences.some((sequence) => sequence.length !== length)) {
      throw new RangeError(`Expected ${cache.batch} sequences of one length, found ${sequences.length}`);
    }
    const total = cache.length + length;
    if (total > this.config.maxPositionEmbeddings) {
      throw new RangeError(
        `The text has ${total} tokens, but this language model knows ${this.config.maxPositionEmbeddings} positions; shorten it`,
      );
    }
  }
}
