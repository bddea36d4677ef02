/** The gated feed-forward block of LLaMA (SwiGLU, Shazeer, arXiv 2002.05202). */
import { silu } from "../tensor/elementwise.ts";
import type { Value } from "../tensor/graph.ts";
import { combinedLinears, linear } from "./linear.ts";
import type { Weights } from "./weights.ts";

/** down(silu(gate(x)) * up(x)): x [..., hidden] -> [..., hidden]. */
export function gatedMlp(w: Weights, x: Value, intermediateSize: number): Value {
  const inner = combinedLinears(w, x, ["gate_proj", "up_proj"], intermediateSize, ([gate, up]) =>
    silu(gate as Value).mul(up as Value),
  );
  return linear(w.at("down_proj"), inner, x.size(-1));
}
