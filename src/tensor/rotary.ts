/** Rotary position embedding with the half-split pairing (element i turns with element i + headSize / 2), as LLaMA has it. */
import { single, type Value } from "./graph.ts";

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
