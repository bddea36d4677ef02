/** Scaled dot-product attention (Vaswani et al., arXiv 1706.03762, section 3.2), with and without a KV cache. */
import { type Graph, single, type Value } from "../tensor/graph.ts";
import { concat, expand, reshape, split, transpose } from "../tensor/ops/layout.ts";
import { matmul } from "../tensor/ops/matmul.ts";
import { softmax } from "../tensor/ops/reduce.ts";
import { mulDims } from "../tensor/shapes.ts";

/** Added to the scores of masked positions; its exponential is 0 in float32. */
export const masked = -1e9;

/** x [batch, sequence, heads * size] -> [batch, heads, sequence, size]. */
export function splitHeads(x: Value, heads: number): Value {
  const width = x.size(-1);
  if (width % heads !== 0) throw new Error(`${x.graph.where()}${x} cannot be split into ${heads} heads`);
  return transpose(reshape(x, [x.dim(0), x.dim(1), heads, width / heads]), [0, 2, 1, 3]);
}

/** x [batch, heads, sequence, size] -> [batch, sequence, heads * size]. */
export function joinHeads(x: Value): Value {
  return reshape(transpose(x, [0, 2, 1, 3]), [x.dim(0), x.dim(2), x.size(1) * x.size(3)]);
}

/**
 * q [batch, heads, m, size], k and v [batch, heads, n, size] -> [batch, heads, m, size].
 *
 * If k and v have fewer heads than q, groups of query heads share them (grouped-query attention).
 * @param mask added to the scores; broadcasts against [batch, heads, m, n]
 */
export function attention(q: Value, k: Value, v: Value, mask?: Value): Value {
  const grouped = groupHeads(q, k);
  const scores = matmul(grouped, k, { transB: true, scale: attentionScale(q) });
  return reshape(matmul(softmax(addMask(scores, q, mask)), v), q.shape);
}

/** Keys and values of earlier positions. Unused positions are masked. */
export interface Past {
  /** [batch, kvHeads, past, size]. */
  readonly keys: Value;
  /** [batch, kvHeads, past, size]. */
  readonly values: Value;
  /** Added to the scores, broadcasts against [batch, heads, m, past + n]; see `causalMask`. */
  readonly mask: Value;
}

/**
 * Attention of new positions to cached ones and to themselves. The scores are concatenated and their softmax is split again, so the
 * cache is never copied. Shapes as in `attention`.
 */
export function cachedAttention(q: Value, k: Value, v: Value, past: Past): Value {
  // Scale the queries, not the product: the runtime's fast kernel for one row is used only for products without a factor.
  const grouped = groupHeads(q.mul(attentionScale(q)), k);
  const scores = concat(
    [past.keys, k].map((keys) => matmul(grouped, keys, { transB: true })),
    -1,
  );
  const weights = softmax(addMask(scores, q, past.mask));
  const [toPast, toNew] = split(weights, -1, [past.keys.dim(2), k.dim(2)]) as [Value, Value];
  return reshape(matmul(toPast, past.values).add(matmul(toNew, v)), q.shape);
}

/**
 * The causal mask of `m` new positions after an optional cache.
 *
 * @param past mask of the cache, float32 [batch, past]: 0 for used positions, `masked` for unused ones
 * @returns [1, 1, m, m], or [batch, 1, m, past + m] after a cache
 */
export function causalMask(graph: Graph, m: Value["shape"][number], past?: Value): Value {
  const square = expand(graph.scalar(masked), [1, 1, m, m]);
  const inputs = [square, reshape(graph.integers([1]), [])];
  const future = single(
    graph.node("Trilu", inputs, [{ dtype: "float32", shape: square.shape }], { attributes: { upper: 1 } }),
  );
  if (!past) return future;
  const [batch, length] = [past.dim(0), past.dim(1)];
  return concat(
    [expand(reshape(past, [batch, 1, 1, length]), [batch, 1, m, length]), expand(future, [batch, 1, m, m])],
    -1,
  );
}

function attentionScale(q: Value): number {
  return 1 / Math.sqrt(q.size(-1));
}

/** Merges query heads that share a key head into the rows of one matrix: [batch, kvHeads, group * m, size]. */
function groupHeads(q: Value, k: Value): Value {
  const heads = q.size(1);
  const kvHeads = k.size(1);
  if (heads % kvHeads !== 0)
    throw new Error(`${q.graph.where()}${heads} query heads are not a multiple of ${kvHeads} key heads`);
  return reshape(q, [q.dim(0), kvHeads, mulDims(heads / kvHeads, q.dim(2)), q.dim(3)]);
}

/** Adds a mask that broadcasts against [batch, heads, m, n] to scores [batch, kvHeads, group * m, n]. */
function addMask(scores: Value, q: Value, mask?: Value): Value {
  if (!mask) return scores;
  return reshape(reshape(scores, [...q.shape.slice(0, 3), scores.dim(-1)]).add(mask), scores.shape);
}
