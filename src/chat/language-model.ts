/** A LLaMA that is ready to read and write: one session, and caches of what was read. */

import { type LlamaConfig, logits } from "../models/llama.ts";
import type { WeightSource } from "../nn/weights.ts";
import type { NdArray } from "../tensor/array.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { KVCache } from "./kv-cache.ts";
import { indices, type Position, type Precision, readingFeeds, readingGraph } from "./reading-graph.ts";

export interface LanguageModelOptions extends SessionOptions {
  readonly precision?: Precision;
}

export class LanguageModel {
  readonly config: LlamaConfig;
  private readonly session: Session;

  private constructor(config: LlamaConfig, session: Session) {
    this.config = config;
    this.session = session;
  }

  /** Builds the graph that reads new positions after a cache, and loads it. */
  static async create(
    source: WeightSource,
    config: LlamaConfig,
    options: LanguageModelOptions = {},
  ): Promise<LanguageModel> {
    const { precision = "float32", ...sessionOptions } = options;
    const { weights, hidden, cache } = readingGraph(source, config, precision);
    const outputs = { logits: logits(weights, hidden, config), ...cache };
    return new LanguageModel(config, await Session.create<string>(weights.graph, outputs, sessionOptions));
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
    const wanted = Array.from({ length: batch * (which === "all" ? length : 1) }, (_, i) =>
      which === "all" ? i : (i + 1) * length - 1,
    );
    const outputs = await this.session.run({
      ...readingFeeds(sequences, cache, this.config),
      wanted: indices([wanted.length], wanted),
    });
    cache.append(outputs, length);
    return outputs.logits as NdArray<"float32">;
  }

  release(): Promise<void> {
    return this.session.release();
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
