/** LLaMA's grouped-query attention and rotary position embedding, each as one operator of the runtime. */
import { single, type Value } from "../graph.ts";
import { subDims } from "../shapes.ts";
import { cast } from "./elementwise.ts";
import { reshape, slice } from "./layout.ts";

/** Whether the runtime's operator supports heads of this size. */
export function hasGroupQueryAttention(headDim: number): boolean {
  return headDim % 8 === 0;
}

export interface GroupQueryInputs {
  /** [1, m, heads * headDim], after the rotary position embedding. */
  readonly q: Value;
  /** [1, m, kvHeads * headDim], after the rotary position embedding. */
  readonly k: Value;
  /** [1, m, kvHeads * headDim]. */
  readonly v: Value;
  /** int64 [1, m], consecutive. The first equals the number of used positions of the cache. */
  readonly positions: Value;
  /** Cached keys, [1, kvHeads, capacity, headDim]. */
  readonly keys: Value;
  /** Cached values, [1, kvHeads, capacity, headDim]. */
  readonly values: Value;
}

/**
 * Causal grouped-query attention (Ainslie et al., arXiv 2305.13245) of one sequence's new positions over a cache and themselves. It has
 * no gradient.
 *
 * @returns `out` [1, m, heads * headDim]; `keys` and `values` of the new positions, [1, kvHeads, m, headDim]
 * @throws Error if the sizes do not match, the batch is not 1, or the runtime does not support the head size
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
  if (q.dim(0) !== 1) throw new Error(`${what}: expected one sequence`);
  if (k.size(2) !== kvHeads * headDim || heads % kvHeads !== 0)
    throw new Error(`${what}: the numbers of heads do not match`);
  if (!hasGroupQueryAttention(headDim)) throw new Error(`${what}: the head size must be a multiple of 8`);
  const first = reshape(slice(positions, 1, 0, 1), [1]);
  const last = reshape(slice(positions, 1, subDims(m, 1)), [1]);
  const total = last.add(1);
  const toInt32 = (x: Value) => cast(x, "int32");
  const joined = [1, kvHeads, "joined", headDim];
  const [out, allKeys, allValues] = graph.node(
    "GroupQueryAttention",
    [q, k, v, keys, values, toInt32(last), toInt32(total)],
    [q.shape, joined, joined].map((shape) => ({ dtype: q.dtype, shape })),
    { attributes: { num_heads: heads, kv_num_heads: kvHeads }, domain: "com.microsoft" },
  ) as [Value, Value, Value];
  // The operator returns the cached positions followed by the new ones.
  const sliceNew = (all: Value) =>
    single(
      graph.node(
        "Slice",
        [all, first, total, graph.integers([2])],
        [{ dtype: q.dtype, shape: [1, kvHeads, m, headDim] }],
      ),
    );
  return { out, keys: sliceNew(allKeys), values: sliceNew(allValues) };
}

/**
 * Rotary position embedding (Su et al., arXiv 2104.09864) of the heads of x [batch, sequence, heads * headSize], with the half-split pairing
 * of LLaMA: element i is rotated with element i + headSize / 2.
 *
 * @param positions int64 [batch, sequence], rows of the tables
 * @param cos [positions, headSize / 2]
 * @param sin [positions, headSize / 2]
 */
export function rotaryEmbedding(x: Value, positions: Value, cos: Value, sin: Value, heads: number): Value {
  const width = x.dim(-1);
  const half = cos.dim(-1);
  if (x.rank !== 3 || typeof width !== "number" || typeof half !== "number" || width !== heads * half * 2) {
    throw new Error(
      `${x.graph.where()}rotaryEmbedding of ${x}: expected [batch, sequence, heads * headSize] for ${heads} heads and ${half} angles (${cos})`,
    );
  }
  return single(
    x.graph.node("RotaryEmbedding", [x, positions, cos, sin], [{ dtype: x.dtype, shape: x.shape }], {
      attributes: { num_heads: heads, interleaved: 0 },
      domain: "com.microsoft",
    }),
  );
}
