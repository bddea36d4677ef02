/** Position embeddings: bicubic interpolation of learned ones, and the tables of rotary ones. */
import { type NdArray, ndarray } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { concat, reshape, split } from "../tensor/ops/layout.ts";
import { matmul } from "../tensor/ops/matmul.ts";

/** Parameter a of the cubic kernel, as in PyTorch's `interpolate`. */
const sharpness = -0.75;

/**
 * Bicubic interpolation of an image encoder's position embeddings to another number of patches, as BLIP-2's `interpolate_pos_embed`. The
 * class token's embedding is kept.
 *
 * @param positions [1, 1 + from * from, width]
 * @returns [1, 1 + to * to, width]
 */
export function resizePositions(positions: Value, from: number, to: number): Value {
  if (from === to) return positions;
  const width = positions.dim(-1);
  const [classToken, patches] = split(positions, 1, [1, from * from]) as [Value, Value];
  const weights = positions.graph.constant(ndarray("float32", [to, from], cubicWeights(from, to)), "interpolation");
  const rows = matmul(weights, reshape(patches, [from, from * (width as number)]));
  const grid = matmul(weights, reshape(rows, [to, from, width]));
  return concat([classToken, reshape(grid, [1, to * to, width])], 1);
}

/** Interpolation weights [to, from]. Positions beyond an edge use the edge. */
function cubicWeights(from: number, to: number): Float32Array {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const centre = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(centre) - 1;
    for (let tap = first; tap < first + 4; tap++) {
      const at = i * from + Math.min(Math.max(tap, 0), from - 1);
      weights[at] = (weights[at] as number) + cubic(Math.abs(centre - tap));
    }
  }
  return weights;
}

/** Keys' cubic convolution kernel at a distance of 0 to 2 positions (IEEE ASSP 29, 1981). */
function cubic(distance: number): number {
  const a = sharpness;
  if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  if (distance < 2) return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a;
  return 0;
}

/** The tables of `rotaryAngles` as constants of a graph. */
export function rotaryTables(
  graph: Graph,
  positions: number,
  headSize: number,
  base: number,
): { cos: Value; sin: Value } {
  const { cos, sin } = rotaryAngles(positions, headSize, base);
  return { cos: graph.constant(cos, "rotary.cos"), sin: graph.constant(sin, "rotary.sin") };
}

/**
 * Cosines and sines of rotary position embeddings (Su et al., arXiv 2104.09864, section 3.4) as in LLaMA, [positions, headSize / 2]:
 * angle = position / base^(2 i / headSize).
 */
export function rotaryAngles(
  positions: number,
  headSize: number,
  base: number,
): { cos: NdArray<"float32">; sin: NdArray<"float32"> } {
  const half = headSize / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  // Round to float32 at each step, like the original implementation.
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
