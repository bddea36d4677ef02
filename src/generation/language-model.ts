/** A language model ready to run: the decoder graph over a KV cache, its inputs, and the session that runs it. */
import { type LlamaConfig, llama, llamaMatrices, logits } from "../models/llama.ts";
import { embedSequence, type MultimodalSequence } from "../models/minigpt4.ts";
import { Weights } from "../nn/weights.ts";
import type { Runner } from "../runtime/runner.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { type Quantization, quantizationPolicy } from "../tensor/quant/quantization.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { KVCache } from "./kv-cache.ts";

/** One position of a sequence: a token id, or an image token's embedding [hiddenSize]. */
export type Position = number | Float32Array;

/** A faster forward pass over many positions of one sequence. */
export interface Prefiller {
  /** Appends the positions to the cache's one sequence and returns the logits after the last one, [1, vocabSize]. */
  forward(sequence: readonly Position[], cache: KVCache): Promise<NdArray<"float32">>;
  /** Like `forward`, without computing logits. */
  prefill(sequence: readonly Position[], cache: KVCache): Promise<void>;
  close(): Promise<void>;
}

/** Above this many positions the prefiller is faster than the decoder graph. */
const minPrefillLength = 64;

export class LanguageModel implements AsyncDisposable {
  readonly config: LlamaConfig;
  private readonly runner: Runner;
  private readonly prefiller?: Prefiller;

  /**
   * @param runner runs a graph of `languageGraph`
   * @param prefiller runs long prompts
   */
  constructor(config: LlamaConfig, runner: Runner, prefiller?: Prefiller) {
    this.config = config;
    this.runner = runner;
    this.prefiller = prefiller;
  }

  /** An empty KV cache for `batch` sequences. */
  newCache(batch = 1): KVCache {
    const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = this.config;
    return new KVCache({ layers, kvHeads, headDim }, batch);
  }

  /**
   * Runs the model over new positions of each sequence and appends them to the cache.
   *
   * @param sequences new positions of each sequence of the cache, all of the same length
   * @param which positions whose logits are returned
   * @returns logits [batch, vocabSize] after the last position; with `all`, [batch * length, vocabSize]
   * @throws RangeError if the sequences do not match the cache, or exceed the model's positions
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
    const prefiller = which === "last" && others.length === 0 ? this.choosePrefiller(sequence) : undefined;
    if (prefiller) return prefiller.forward(sequence, cache);
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

  /** Appends new positions to the cache's one sequence, like `forward`, for callers that need no logits. */
  async prefill(sequence: readonly Position[], cache: KVCache): Promise<void> {
    this.checkLengths([sequence], cache, sequence.length);
    const prefiller = this.choosePrefiller(sequence);
    if (prefiller) await prefiller.prefill(sequence, cache);
    else await this.forward([sequence], cache);
  }

  /** Frees the memory of the runtime. */
  async close(): Promise<void> {
    await this.runner.close();
    await this.prefiller?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private choosePrefiller({ length }: readonly Position[]): Prefiller | undefined {
    return length > minPrefillLength ? this.prefiller : undefined;
  }

  private checkLengths(sequences: readonly (readonly Position[])[], cache: KVCache, length: number): void {
    if (length === 0) throw new RangeError("The sequence is empty; expected at least one position");
    if (sequences.length !== cache.batch || sequences.some((sequence) => sequence.length !== length)) {
      throw new RangeError(
        `Expected ${cache.batch} sequences of equal length, found lengths ${sequences.map(({ length }) => length).join(", ")}`,
      );
    }
    const total = cache.length + length;
    if (total > this.config.maxPositionEmbeddings) {
      throw new RangeError(
        `The text has ${total} tokens, but this language model has ${this.config.maxPositionEmbeddings} positions; shorten it`,
      );
    }
  }
}

/** A graph that runs new positions over a KV cache; `decoderFeeds` makes its inputs. */
export interface DecoderGraph {
  readonly weights: Weights;
  /** Hidden states after the last norm, at the positions of [batch * sequence] in the input `outputIndices`: [selected, hiddenSize]. */
  readonly hidden: Value;
  /** Outputs for `KVCache.append`. */
  readonly cache: Readonly<Record<string, Value>>;
}

/** Embeddings and transformer, without an output layer. */
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

/** The decoder graph with the output `logits` [selected, vocabSize]. */
export function languageGraph(
  source: WeightSource,
  config: LlamaConfig,
  quantization?: Quantization,
): { graph: Graph; outputs: Record<string, Value> } {
  const { weights, hidden, cache } = decoderGraph(source, config, quantization);
  return { graph: weights.graph, outputs: { logits: logits(weights, hidden, config), ...cache } };
}

/** Inputs of a graph for a sequence of text and image tokens. */
export function sequenceInputs(graph: Graph, { hiddenSize }: LlamaConfig): MultimodalSequence {
  return {
    ids: graph.input("ids", "int64", ["batch", "sequence"]),
    imageTokens: graph.input("imageTokens", "float32", ["images", hiddenSize]),
    imageIndices: graph.input("imageIndices", "int64", ["images"]),
  };
}

/** Inputs of a decoder graph: new positions of each sequence of the cache, all of the same length, and the cache. */
export function decoderFeeds(
  sequences: readonly (readonly Position[])[],
  cache: KVCache,
  { hiddenSize }: LlamaConfig,
): Record<string, NdArray> {
  const flat = sequences.flat();
  const imageIndices = flat.flatMap((position, i) => (typeof position === "number" ? [] : [i]));
  const rows = new Float32Array(imageIndices.length * hiddenSize);
  imageIndices.forEach((place, i) => {
    const row = flat[place] as Float32Array;
    if (row.length !== hiddenSize)
      throw new RangeError(`An image token has ${row.length} values; expected ${hiddenSize}`);
    rows.set(row, i * hiddenSize);
  });
  const ids = flat.map((position) => (typeof position === "number" ? position : 0));
  const shape = [sequences.length, flat.length / sequences.length];
  const positions = cache.lengths.flatMap((length) => Array.from({ length: shape[1] ?? 0 }, (_, i) => length + i));
  return {
    ids: indices(shape, ids),
    positions: indices(shape, positions),
    imageTokens: ndarray("float32", [imageIndices.length, hiddenSize], rows),
    imageIndices: indices([imageIndices.length], imageIndices),
    ...cache.feeds(),
  };
}

/** An int64 array. */
export function indices(shape: readonly number[], values: readonly number[]): NdArray<"int64"> {
  return ndarray("int64", shape, BigInt64Array.from(values, BigInt));
}
