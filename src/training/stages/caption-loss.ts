/** The loss of both stages of MiniGPT-4: cross-entropy of the answer tokens, given images and prompts. */
import { llama, llamaMatrices, negativeLogLikelihood } from "../../models/llama.ts";
import {
  embedSequence,
  type FrozenDepth,
  frozenShape,
  imageTokens,
  type MiniGPT4Config,
  type MiniGPT4Weights,
} from "../../models/minigpt4.ts";
import type { Regularizer } from "../../models/qformer.ts";
import { Weights } from "../../nn/weights.ts";
import { Graph, type Value } from "../../tensor/graph.ts";
import { detach } from "../../tensor/ops/elementwise.ts";
import { gather } from "../../tensor/ops/gather.ts";
import { reshape } from "../../tensor/ops/layout.ts";
import { reduceSum } from "../../tensor/ops/reduce.ts";
import { quantizationPolicy } from "../../tensor/quant/quantization.ts";
import { mulDims } from "../../tensor/shapes.ts";
import type { WeightSource } from "../../tensor/weight-source.ts";
import type { ModelParts } from "../parts.ts";

/** Inputs of a batch besides its features, as `batchSequences` returns them. */
interface BatchInputs {
  /** int64 [batch, sequence]. */
  readonly positions: Value;
  /** float32 [batch, 1, sequence, sequence], added to the attention scores. */
  readonly mask: Value;
  /** int64 [targets]: indices into [batch * sequence] of the tokens that predict a target, and the targets. */
  readonly targetIndices: Value;
  readonly targetIds: Value;
}

function batchInputs(graph: Graph): BatchInputs {
  return {
    positions: indices(graph, "positions", "batch", "sequence"),
    mask: graph.input("mask", "float32", ["batch", 1, "sequence", "sequence"]),
    targetIndices: indices(graph, "targetIndices", "targets"),
    targetIds: indices(graph, "targetIds", "targets"),
  };
}

function indices(graph: Graph, name: string, ...shape: string[]): Value {
  return graph.input(name, "int64", shape);
}

export interface LossOptions {
  /** The layer that the features come from. */
  readonly depth?: FrozenDepth;
  readonly regularize?: Regularizer;
}

/**
 * The input embeddings of the language model, [batch, sequence, hiddenSize]: word embeddings with image tokens in their places.
 *
 * Inputs: `features` float32 [images, ...frozenShape]; `ids` int64 [batch, sequence]; `imageRows` and `imageIndices` int64 [places]: the
 * row of the image tokens [images * tokens] that goes to each place of [batch * sequence].
 */
export function sequenceEmbeddings(w: MiniGPT4Weights, config: MiniGPT4Config, options: LossOptions = {}): Value {
  const { graph } = w.llm;
  const { hiddenSize } = config.llm;
  const shape = ["images", ...frozenShape(config, options.depth ?? "encoder")];
  const tokens = imageTokens(w, graph.input("features", "float32", shape), config, options);
  const rows = reshape(tokens, [mulDims(tokens.dim(0), tokens.dim(1)), hiddenSize]);
  const ids = indices(graph, "ids", "batch", "sequence");
  const imageRows = indices(graph, "imageRows", "places");
  const imageIndices = indices(graph, "imageIndices", "places");
  return embedSequence(w.llm, { ids, imageIndices, imageTokens: gather(rows, imageRows) }, config.llm);
}

/** The negative log-likelihood of each target token, [targets]. Logits are computed only where there is a target. */
export function tokenLosses(w: MiniGPT4Weights, config: MiniGPT4Config, options: LossOptions = {}): Value {
  const embeddings = sequenceEmbeddings(w, config, options);
  const { positions, mask, targetIndices: outputIndices, targetIds } = batchInputs(w.llm.graph);
  const { hidden: predicting } = llama(w.llm, embeddings, positions, config.llm, { mask, outputIndices });
  return negativeLogLikelihood(w.llm, predicting, targetIds, config.llm);
}

/**
 * The mean of token losses [targets] over a step. The losses of its micro-batches add up: the input `targetShare` is
 * 1 / targets of the whole step.
 */
export function meanLoss(losses: Value): Value {
  return reduceSum(losses, [0], { keep: false }).mul(losses.graph.input("targetShare", "float32", []));
}

/** Inputs of `externalLoss`. */
export const externalLossInputs = { loss: "externalLoss", gradient: "embeddingsGradient" } as const;

/**
 * A loss that is computed outside of the graph and fed to it, float32 [], together with its gradient with respect to
 * `embeddings`, which has their shape.
 */
export function externalLoss(embeddings: Value): Value {
  const { graph } = embeddings;
  const gradient = graph.input(externalLossInputs.gradient, "float32", embeddings.shape);
  const axes = embeddings.shape.map((_, axis) => axis);
  // Only the gradient of this product is used; its value cancels out.
  const product = reduceSum(embeddings.mul(gradient), axes, { keep: false });
  return graph.input(externalLossInputs.loss, "float32", []).add(product.sub(detach(product)));
}

/**
 * The weights of a MiniGPT-4 in a new graph: trained ones are inputs, frozen ones constants.
 * @param source weights of encoder, Q-Former and projection; only the shapes of the trained ones matter
 */
export function trainingWeights(
  { llm, isTrained }: ModelParts,
  source: WeightSource,
  llmQuantization: "float32" | "int8",
): MiniGPT4Weights {
  const graph = new Graph();
  const image = new Weights(graph, source, { trainable: isTrained });
  const quantization = quantizationPolicy(llmQuantization, llamaMatrices);
  return {
    encoder: image,
    qformer: image,
    projection: image,
    llm: new Weights(graph, llm.checkpoint, { quantization }),
  };
}
