/** The graph of a language model that reads new positions after a cache; `readingFeeds` gives what it is fed with. */
import { type LlamaConfig, llama } from "../models/llama.ts";
import { embedSequence, type MultimodalSequence } from "../models/minigpt4.ts";
import { asStored, type WeightOptions, type WeightSource, Weights } from "../nn/weights.ts";
import { Graph, type Value } from "../tensor/graph.ts";

/**
 * Precision of the matrices; input embeddings keep the file's values. "int4" takes blocks as the file stores them, or makes
 * 4-bit blocks of 32; "int4-128" rounds to blocks of 128, which are read faster and are coarser. "stored" takes blocks where
 * the file has them, and float32 elsewhere.
 */
export const precisions = ["float32", "int4", "int4-128", "stored"] as const;
export type Precision = (typeof precisions)[number];

export interface ReadingGraph {
  readonly weights: Weights;
  /** After the last norm, one row for each place of [batch * sequence] that the input `wanted` names: [wanted, hiddenSize]. */
  readonly hidden: Value;
  /** Outputs that `KVCache.append` takes. */
  readonly cache: Readonly<Record<string, Value>>;
}

/** Embeddings and transformer; what is computed of `hidden` is up to the caller. */
export function readingGraph(
  source: WeightSource,
  config: LlamaConfig,
  precision: Precision = "float32",
): ReadingGraph {
  const graph = new Graph();
  const weights = new Weights(graph, source, weightOptions[precision](source));
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
  const wanted = input("wanted", "int64", ["wanted"]);
  const { hidden, cache } = llama(weights, embeddings, positions, config, { past, wanted });
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

/** Whether a weight of a language model is a matrix that a precision is for. */
export const isMatrix = (name: string) => /_proj\.weight$|^lm_head\.weight$|embed_tokens\.weight$/.test(name);

const weightOptions: Readonly<Record<Precision, (source: WeightSource) => WeightOptions>> = {
  float32: () => ({}),
  int4: () => ({ int4: isMatrix }),
  "int4-128": () => ({ int4: isMatrix, blockSize: 128 }),
  stored: asStored,
};
