/** Tables of the rotary position embedding (Su et al., arXiv 2104.09864) as LLaMA uses it. */
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";

/** Cosines and sines of every position's angles as constants of a graph, see `rotaryAngles`. */
export function rotaryTables(
  graph: Graph,
  positions: number,
  headSize: number,
  base: number,
): { cos: Value; sin: Value } {
  const { cos, sin } = rotaryAngles(positions, headSize, base);
  return { cos: graph.constant(cos, "rotary.cos"), sin: graph.constant(sin, "rotary.sin") };
}

/** Cosines and sines of every position's angles, [positions, headSize / 2]: angle = position / base^(2 i / headSize). */
export function rotaryAngles(
  positions: number,
  headSize: number,
  base: number,
): { cos: NdArray<"float32">; sin: NdArray<"float32"> } {
  const half = headSize / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  // Angles are rounded to float32 at each step, as the original computes them.
  const frequencies = Float32Array.from({ length: half }, (_, i) => 1 / base ** ((2 * i) / headSize));
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * (frequencies[i] as number));
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  const shape = [positions, half];
  return { cos: ndarray("float32", shape, cos), sin: ndarray("float32", shape, sin) };
}
