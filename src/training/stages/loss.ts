/** The loss of both of MiniGPT-4's stages: cross-entropy of the answers' tokens, given pictures and prompts. */
import { llama, negativeLogLikelihood } from "../../models/llama.ts";
import {
  embedSequence,
  type FrozenDepth,
  frozenShape,
  imageTokens,
  type MiniGPT4Config,
  type MiniGPT4Weights,
} from "../../models/minigpt4.ts";
import type { Regularizer } from "../../models/qformer.ts";
import { mulDims } from "../../tensor/dims.ts";
import type { Graph, Value } from "../../tensor/graph.ts";
import { reshape } from "../../tensor/layout.ts";
import { gather } from "../../tensor/lookup.ts";
import { reduceSum } from "../../tensor/reduce.ts";

/** Inputs of the graph for one batch; `batchSequences` makes their arrays. */
interface BatchInputs {
  /** float32 [images, ...frozenShape]. */
  readonly features: Value;
  /** int64 [batch, sequence]. */
  readonly ids: Value;
  readonly positions: Value;
  /** float32 [batch, 1, sequence, sequence], added to the scores of attention: who sees whom. */
  readonly mask: Value;
  /** int64 [places]: which row of the image tokens [images * tokens] goes to which place of [batch * sequence]. */
  readonly imageRows: Value;
  readonly imagePlaces: Value;
  /** int64 [targets]: places of [batch * sequence] whose next token counts, and that token. */
  readonly targetPlaces: Value;
  readonly targetIds: Value;
}

function batchInputs(graph: Graph, config: MiniGPT4Config, depth: FrozenDepth): BatchInputs {
  const indices = (name: string, ...shape: string[]) => graph.input(name, "int64", shape);
  return {
    features: graph.input("features", "float32", ["images", ...frozenShape(config, depth)]),
    ids: indices("ids", "batch", "sequence"),
    positions: indices("positions", "batch", "sequence"),
    mask: graph.input("mask", "float32", ["batch", 1, "sequence", "sequence"]),
    imageRows: indices("imageRows", "places"),
    imagePlaces: indices("imagePlaces", "places"),
    targetPlaces: indices("targetPlaces", "targets"),
    targetIds: indices("targetIds", "targets"),
  };
}

export interface LossOptions {
  /** Where the fed features come from. */
  readonly depth?: FrozenDepth;
  readonly regularize?: Regularizer;
}

/** The negative log-likelihood of each target token, [targets]. Logits are computed only where there is a target. */
export function tokenLosses(w: MiniGPT4Weights, config: MiniGPT4Config, options: LossOptions = {}): Value {
  const { graph } = w.llm;
  const inputs = batchInputs(graph, config, options.depth ?? "encoder");
  const { hiddenSize } = config.llm;
  const tokens = imageTokens(w, inputs.features, config, options);
  const rows = reshape(tokens, [mulDims(tokens.dim(0), tokens.dim(1)), hiddenSize]);
  const sequence = { ids: inputs.ids, imagePlaces: inputs.imagePlaces, imageTokens: gather(rows, inputs.imageRows) };
  const embeddings = embedSequence(w.llm, sequence, config.llm);
  const { positions, mask, targetPlaces: wanted } = inputs;
  const { hidden: predicting } = llama(w.llm, embeddings, positions, config.llm, { mask, wanted });
  return negativeLogLikelihood(w.llm, predicting, inputs.targetIds, config.llm);
}

/**
 * The mean over all target tokens of a step. A step may consist of several batches, whose losses add up: the input
 * `targetShare` is 1 / targets of the whole step.
 */
export function captionLoss(w: MiniGPT4Weights, config: MiniGPT4Config, options: LossOptions = {}): Value {
  const losses = tokenLosses(w, config, options);
  return reduceSum(losses, [0], { keep: false }).mul(w.llm.graph.input("targetShare", "float32", []));
}
