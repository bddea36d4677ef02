/** A LLaMA that is ready to read and write: one session, and caches of what was read. */

import { type LlamaConfig, llama, logits } from "../models/llama.ts";
import { embedSequence } from "../models/minigpt4.ts";
import { type WeightOptions, type WeightSource, Weights } from "../nn/weights.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { Graph } from "../tensor/graph.ts";
import { reshape } from "../tensor/layout.ts";
import { gather } from "../tensor/lookup.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import { KVCache } from "./kv-cache.ts";

/** One position of a sequence: a token id, or an image token's embedding [hiddenSize]. */
export type Position = number | Float32Array;

export interface LanguageModelOptions extends SessionOptions {
  /** Precision of the matrices; the table of input embeddings stays in float32. */
  readonly precision?: "float32" | "int4";
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
    const graph = new Graph();
    const weights = new Weights(graph, source, precision === "int4" ? int4Options : {});
    const input = (name: string, dtype: "float32" | "int64", shape: (string | number)[]) =>
      graph.input(name, dtype, shape);
    const embeddings = embedSequence(
      weights,
      {
        ids: input("ids", "int64", ["batch", "sequence"]),
        imageTokens: input("imageTokens", "float32", ["images", config.hiddenSize]),
        imagePlaces: input("imagePlaces", "int64", ["images"]),
      },
      config,
    );
    const positions = input("positions", "int64", ["batch", "sequence"]);
    const { numKeyValueHeads: heads, headDim } = config;
    const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => ({
      keys: input(`keys.${i}`, "float32", ["batch", heads, headDim, "past"]),
      values: input(`values.${i}`, "float32", ["batch", heads, "past", headDim]),
    }));
    const past = { layers, mask: input("pastMask", "float32", ["batch", "past"]) };
    const { hidden, cache } = llama(weights, embeddings, positions, config, past);
    const rows = reshape(hidden, ["batch*sequence", config.hiddenSize]);
    const wanted = gather(rows, input("wanted", "int64", ["wanted"]));
    const session = await Session.create<string>(
      graph,
      {
        logits: logits(weights, wanted, config),
        ...Object.fromEntries(
          cache.flatMap(({ keys, values }, i) => [
            [`newKeys.${i}`, keys],
            [`newValues.${i}`, values],
          ]),
        ),
      },
      sessionOptions,
    );
    return new LanguageModel(config, session);
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
    const start = cache.length;
    const positions = Array.from({ length: batch * length }, (_, i) => start + (i % length));
    const wanted =
      which === "all" ? positions.map((_, i) => i) : Array.from({ length: batch }, (_, i) => (i + 1) * length - 1);
    const outputs = await this.session.run({
      ...sequenceFeeds(sequences, this.config.hiddenSize),
      positions: indices([batch, length], positions),
      wanted: indices([wanted.length], wanted),
      ...cache.feeds(),
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

const int4Options: WeightOptions = {
  int4: (name) => /_proj\.weight$|^lm_head\.weight$|embed_tokens\.weight$/.test(name),
};

/** Token ids and image tokens of a batch as the graph takes them. */
function sequenceFeeds(sequences: readonly (readonly Position[])[], hiddenSize: number): Record<string, NdArray> {
  const flat = sequences.flat();
  const places = flat.flatMap((position, i) => (typeof position === "number" ? [] : [i]));
  const rows = new Float32Array(places.length * hiddenSize);
  places.forEach((place, i) => {
    const row = flat[place] as Float32Array;
    if (row.length !== hiddenSize)
      throw new RangeError(`An image token has ${row.length} values, expected ${hiddenSize}`);
    rows.set(row, i * hiddenSize);
  });
  const ids = flat.map((position) => (typeof position === "number" ? position : 0));
  return {
    ids: indices([sequences.length, flat.length / sequences.length], ids),
    imageTokens: ndarray("float32", [places.length, hiddenSize], rows),
    imagePlaces: indices([places.length], places),
  };
}

function indices(shape: readonly number[], values: readonly number[]): NdArray<"int64"> {
  return ndarray("int64", shape, BigInt64Array.from(values, BigInt));
}
