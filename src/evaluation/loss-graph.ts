/** A language model that gives losses instead of scores. */
import { type Precision, type ReadingGraph, readingGraph } from "../chat/reading-graph.ts";
import { logits } from "../models/llama.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import { neg } from "../tensor/elementwise.ts";
import type { Value } from "../tensor/graph.ts";
import { reshape } from "../tensor/layout.ts";
import { gatherElements } from "../tensor/lookup.ts";
import { logSoftmax } from "../tensor/reduce.ts";

/**
 * The graph of `readingGraph` with the output `losses` [wanted], the negative log-likelihood of the tokens `targets` int64 [wanted] at
 * the places that `wanted` names. All scores are computed as in chat, whatever the precision.
 */
export function lossGraph(
  { checkpoint, config }: OpenLlama,
  precision?: Precision,
): { readonly outputs: Record<string, Value> } & Pick<ReadingGraph, "weights"> {
  const { weights, hidden, cache } = readingGraph(checkpoint, config, precision);
  const targets = reshape(weights.graph.input("targets", "int64", ["wanted"]), ["wanted", 1]);
  const scores = gatherElements(logSoftmax(logits(weights, hidden, config)), targets);
  return { weights, outputs: { losses: neg(reshape(scores, ["wanted"])), ...cache } };
}
