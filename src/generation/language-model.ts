/** A LLaMA that is ready to read and write: one session, and caches of what was read. */
import { type LlamaConfig, llama, llamaMatrices } from "../models/llama.ts";
import { embedSequence, type MultimodalSequence } from "../models/minigpt4.ts";
import { Weights } from "../nn/weights.ts";
import type { Runner } from "../runtime/runner.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { type Quantization, quantizationPolicy } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { KVCache } from "./kv-cache.ts";

// The arrays that a reading graph is fed with: sequences of token ids and image tokens, and the cache of what was read before.

/** One position of a sequence: a token id, or an image token's embedding [hiddenSize]. */
export type Position = number | Float32Array;

/** Feeds of the graph: sequences of equal length, one for each sequence of the cache, and the cache. */
export function decoderFeeds(
  sequences: readonly (readonly Position[])[],
  cache: KVCache,
  { hiddenSize }: LlamaConfig,
): Record<string, NdArray> {
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
  const shape = [sequences.length, flat.length / sequences.length];
  const positions = cache.lengths.flatMap((length) => Array.from({ length: shape[1] ?? 0 }, (_, i) => length + i));
  return {
    ids: indices(shape, ids),
    positions: indices(shape, positions),
    imageTokens: ndarray("float32", [places.length, hiddenSize], rows),
    imagePlaces: indices([places.length], places),
    ...cache.feeds(),
  };
}

/** An int64 array. */
export function indices(shape: readonly number[], values: readonly number[]): NdArray<"int64"> {
  return ndarray("int64", shape, BigInt64Array.from(values, BigInt));
}

/** A faster way to read many positions. */
export interface Prefiller {
  /** Reads new positions of the cache's one sequence, which it grows by; the scores of what follows the last one, [1, vocabSize]. */
  forward(sequence: readonly Position[], cache: KVCache): Promise<NdArray<"float32">>;
  /** As `read`, where nobody wants the scores. */
  prefill(sequence: readonly Position[], cache: KVCache): Promise<void>;
  close(): Promise<void>;
}

/** For more positions than these a prompt reader is faster than the language model itself. */
const minPrefillLength = 64;

export class LanguageModel {
  readonly config: LlamaConfig;
  private readonly runner: Runner;
  private readonly prompts: Prefiller | undefined;

  /**
   * @param runner a reading graph with the output `logits`, of the places in `outputIndices`
   * @param prompts reads long prompts
   */
  constructor(config: LlamaConfig, runner: Runner, prompts?: Prefiller) {
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
  async forward(
    sequences: readonly (readonly Position[])[],
    cache: KVCache,
    which: "last" | "all" = "last",
  ): Promise<NdArray<"float32">> {
    const batch = sequences.length;
    const length = sequences[0]?.length ?? 0;
    this.checkLengths(sequences, cache, length);
    const [sequence = [], ...others] = sequences;
    const prompts = which === "last" && others.length === 0 ? this.promptPrefill(sequence) : undefined;
    if (prompts) return prompts.forward(sequence, cache);
    const outputIndices = Array.from({ length: batch * (which === "all" ? length : 1) }, (_, i) =>
      which === "all" ? i : (i + 1) * length - 1,
    );
    const outputs = await this.runner.run({
      ...decoderFeeds(sequences, cache, this.config),
      outputIndices: indices([outputIndices.length], outputIndices),
    });
    cache.append(outputs, length);
    return outputs.logits as NdArray<"float32">;
  }

  /** Reads new positions of the cache's one sequence, which grows by them, where nobody wants the scores. */
  async prefill(sequence: readonly Position[], cache: KVCache): Promise<void> {
    this.checkLengths([sequence], cache, sequence.length);
    const prompts = this.promptPrefill(sequence);
    if (prompts) await prompts.prefill(sequence, cache);
    else await this.forward([sequence], cache);
  }

  async close(): Promise<void> {
    await this.runner.close();
    await this.prompts?.close();
  }

  private promptPrefill({ length }: readonly Position[]): Prefiller | undefined {
    return length > minPrefillLength ? this.prompts : undefined;
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

// The graph of a language model that reads new positions after a cache; `readingFeeds` gives what it is fed with.

export interface DecoderGraph {
  readonly weights: Weights;
  /** After the last norm, one row for each place of [batch * sequence] that the input `outputIndices` names: [selected, hiddenSize]. */
  readonly hidden: Value;
  /** Outputs that `KVCache.append` takes. */
  readonly cache: Readonly<Record<string, Value>>;
}

/** Embeddings and transformer; what is computed of `hidden` is up to the caller. */
export function decoderGraph(
  source: WeightSource,
  config: LlamaConfig,
  quantization: Quantization = "float32",
): DecoderGraph {
  const graph = new Graph();
  const weights = new Weights(graph, source, { quantization: quantizationPolicy(quantization, llamaMatrices) });
  const input = (name: string, dtype: "float32" | "int64", shape: (string | number)[]) =>
    graph.input(name, dtype, shape);
  const embeddings = embedSequence(weights, sequenceInputs(graph, config), config);
  const positions = input("positions", "int64", ["batch", "sequence"]);
  const { numKeyValueHeads: heads, headDim } = config;
  const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => ({
    keys: input(`keys.${i}`, "float32", ["batch", heads, "past", headDim]),
    values: input(`values.${i}`, "float32", ["batch", heads, "past", headDim]),
  }));
  const past = { layers, mask: input("pastMask", "float32", ["batch", "past"]) };
  const outputIndices = input("outputIndices", "int64", ["selected"]);
  const { hidden, cache } = llama(weights, embeddings, positions, config, { past, outputIndices });
  const outputs = cache.flatMap(({ keys, values }, i) => [
    [`newKeys.${i}`, keys],
    [`newValues.${i}`, values],
  ]);
  return { weights, hidden, cache: Object.fromEntries(outputs) };
}

/** The inputs of a graph that say what is read. */
export function sequenceInputs(graph: Graph, { hiddenSize }: LlamaConfig): MultimodalSequence {
  return {
    ids: graph.input("ids", "int64", ["batch", "sequence"]),
    imageTokens: graph.input("imageTokens", "float32", ["images", hiddenSize]),
    imagePlaces: graph.input("imagePlaces", "int64", ["images"]),
  };
}
