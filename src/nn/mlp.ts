/** The gated feed-forward block of LLaMA (SwiGLU, Shazeer, arXiv 2002.05202). */
import { silu } from "../tensor/elementwise.ts";
import type { Value } from "../tensor/graph.ts";
import { linear, linears } from "./linear.ts";
import type { Weights } from "./weights.ts";

/** down(silu(gate(x)) * up(x)): x [..., hidden] -> [..., hidden]. */
export function gatedMlp(w: Weights, x: Value, intermediateSize: number): Value {
  const [gate, up] = linears(w, x, { gate_proj: intermediateSize, up_proj: intermediateSize }) as [Value, Value];
  return linear(w.at("down_proj"), silu(gate).mul(up), x.size(-1));
}
