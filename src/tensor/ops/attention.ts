/** Attention of LLaMA's kind in one operator of the engine. It has no gradient. */

import { single, type Value } from "../graph.ts";
import { subDims } from "../shapes.ts";
import { cast } from "./elementwise.ts";
import { reshape, slice } from "./layout.ts";

/** Whether the engine has the operator for heads of this size. */
export function hasGroupQueryAttention(headDim: number): boolean {
  return headDim % 8 === 0;
}

export interface GroupQueryInputs {
  /** [1, m, heads * headDim], turned to their positions. */
  readonly q: Value;
  /** [1, m, kvHeads * headDim], turned too; `v` likewise. */
  readonly k: Value;
  readonly v: Value;
  /** int64 [1, m], one after the other: the first is how many positions of the cache are used. */
  readonly positions: Value;
  /** What was read before, [1, kvHeads, capacity, headDim]. */
  readonly keys: Value;
  readonly values: Value;
}

/**
 * One sequence's new positions attend to the used ones of a cache, to themselves and to those between; heads of queries share those of
 * keys in groups (Ainslie et al., arXiv 2305.13245).
 *
 * @returns `out` [1, m, heads * headDim]; `keys` and `values` of the new positions, [1, kvHeads, m, headDim]
 * @throws Error if the sizes do not fit, there are several sequences, or the engine has no such heads
 */
export function groupQueryAttention({ q, k, v, positions, keys, values }: GroupQueryInputs): {
  readonly out: Value;
  readonly keys: Value;
  readonly values: Value;
} {
  const { graph } = q;
  const [m, kvHeads, headDim] = [q.dim(1), keys.size(1), keys.size(3)];
  const heads = q.size(2) / headDim;
  const what = `${graph.where()}groupQueryAttention of ${q} and ${k} over a cache of ${keys}`;
  if (q.dim(0) !== 1) throw new Error(`${what}: it is for one sequence`);
  if (k.size(2) !== kvHeads * headDim || heads % kvHeads !== 0) throw new Error(`${what}: the heads do not fit`);
  if (!hasGroupQueryAttention(headDim)) throw new Error(`${what}: heads have a size that is a multiple of 8`);
  const first = reshape(slice(positions, 1, 0, 1), [1]);
  const last = reshape(slice(positions, 1, subDims(m, 1)), [1]);
  const total = last.add(1);
  const place = (x: Value) => cast(x, "int32");
  const joined = [1, kvHeads, "joined", headDim];
  const [out, allKeys, allValues] = graph.node(
    "GroupQueryAttention",
    [q, k, v, keys, values, place(last), place(total)],
    [q.shape, joined, joined].map((shape) => ({ dtype: q.dtype, shape })),
    { attributes: { num_heads: heads, kv_num_heads: kvHeads }, domain: "com.microsoft" },
  ) as [Value, Value, Value];
  // The operator gives all positions, those of the cache in front.
  const added = (all: Value) =>
    single(
      graph.node(
        "Slice",
        [all, first, total, graph.integers([2])],
        [{ dtype: q.dtype, shape: [1, kvHeads, m, headDim] }],
      ),
    );
  return { out, keys: added(allKeys), values: added(allValues) };
}

// Rotary position embedding with the half-split pairing (element i turns with element i + headSize / 2), as LLaMA has it.

/**
 * Turns the heads of x [batch, sequence, heads * headSize] by the angles of their positions.
 *
 * @param positions int64 [batch, sequence], rows of the tables
 * @param cos cosines, [positions, headSize / 2]; `sin` likewise
 */
export function rotaryEmbedding(x: Value, positions: Value, cos: Value, sin: Value, heads: number): Value {
  const width = x.dim(-1);
  const half = cos.dim(-1);
  if (x.rank !== 3 || typeof width !== "number" || typeof half !== "number" || width !== heads * half * 2) {
    throw new Error(`${x.graph.where()}rotaryEmbedding of ${x}: ${heads} heads of ${half} angles (${cos}) do not fit`);
  }
  return single(
    x.graph.node("RotaryEmbedding", [x, positions, cos, sin], [{ dtype: x.dtype, shape: x.shape }], {
      attributes: { num_heads: heads, interleaved: 0 },
      domain: "com.microsoft",
    }),
  );
}
