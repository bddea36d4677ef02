/** The arrays that a reading graph is fed with: sequences of token ids and image tokens, and the cache of what was read before. */
import type { LlamaConfig } from "../models/llama.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { KVCache } from "./kv-cache.ts";

/** One position of a sequence: a token id, or an image token's embedding [hiddenSize]. */
export type Position = number | Float32Array;

/** Feeds of the graph: sequences of equal length, one for each sequence of the cache, and the cache. */
export function readingFeeds(
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
