/** Cross-entropy with smoothed labels (Szegedy et al., arXiv 1512.00567, section 7), as PyTorch computes it. */
import type { Value } from "../tensor/graph.ts";
import { gatherElements } from "../tensor/lookup.ts";
import { logSumExp, reduceMean } from "../tensor/reduce.ts";

/**
 * The loss of each row: logits [rows, classes], targets int64 [rows, 1] -> [rows, 1], in nats.
 *
 * @param smoothing share of the target that is spread evenly over all classes
 */
export function crossEntropy(logits: Value, targets: Value, smoothing = 0): Value {
  const own = gatherElements(logits, targets);
  const wanted = smoothing === 0 ? own : own.mul(1 - smoothing).add(reduceMean(logits, [1]).mul(smoothing));
  return logSumExp(logits).sub(wanted);
}
