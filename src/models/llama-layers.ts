/** Layers of a LLaMA as separate graphs, for models that do not fit into memory as one. */
import { causalMask } from "../nn/attention.ts";
import { rmsNorm } from "../nn/layers.ts";
import { rotaryTables } from "../nn/positions.ts";
import { Weights } from "../nn/weights.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { hasGroupQueryAttention } from "../tensor/ops/attention.ts";
import { gather } from "../tensor/ops/gather.ts";
import { reshape } from "../tensor/ops/layout.ts";
import type { QuantizationPolicy } from "../tensor/quant/quantization.ts";
import { type Dim, mulDims } from "../tensor/shapes.ts";
import type { WeightSource } from "../tensor/weight-source.ts";
import { type LlamaConfig, llamaLayer, logits, negativeLogLikelihood } from "./llama.ts";

/** A part of a network as a graph. */
export interface Piece {
  readonly graph: Graph;
  /** The input `x`, float32; [batch, sequence, hiddenSize] unless stated otherwise. */
  readonly x: Value;
  readonly out: Value;
}

interface PieceOptions {
  /** @default float32 */
  readonly quantization?: QuantizationPolicy;
}

interface LayerOptions extends PieceOptions {
  readonly index: number;
}

interface CachedLayerOptions extends LayerOptions {
  /** Whether constants stay in their files; see `Graph`. @default false */
  readonly mapped?: boolean;
  /** Positions in `out`: all, or those selected by the input `outputIndices`. @default "all" */
  readonly outputs?: "all" | "selected";
}

/** A model's config, with the number of rows of the rotary tables (the length of the longest text). */
export type PieceConfig = LlamaConfig & { readonly positions: number };

/**
 * Layer `index`; `out` has the shape of `x`. The other inputs are `positions` int64 [batch, sequence] and `mask` float32
 * [batch, 1, sequence, sequence], which is added to the attention scores.
 */
export function layerPiece(source: WeightSource, config: PieceConfig, { index, quantization }: LayerOptions): Piece {
  const { graph, x, w } = createGraph(source, config, { quantization });
  const context = {
    positions: graph.input("positions", "int64", ["batch", "sequence"]),
    mask: graph.input("mask", "float32", ["batch", 1, "sequence", "sequence"]),
    rotary: rotaryTables(graph, config.positions, config.headDim, config.ropeTheta),
  };
  const layer = w.at("model.layers").at(index);
  return { graph, x, out: graph.scope(`layers.${index}`, () => llamaLayer(layer, x, context, config).hidden) };
}

/** A layer with a KV cache. */
export interface CachedPiece extends Piece {
  /** Keys of the new positions, [1, kvHeads, sequence, headDim]. */
  readonly keys: Value;
  /** Values of the new positions, of the same shape. */
  readonly values: Value;
}

/**
 * Layer `index` for new positions of one sequence after a cache: `x` [1, sequence, hiddenSize] -> `out` of the same shape, or
 * [selected, hiddenSize] with "selected".
 *
 * The other inputs are `positions` int64 [1, sequence], the first of which is the number of used cache positions; `keys` and `values`
 * float32 [1, kvHeads, capacity, headDim]; the tables `cos` and `sin` of `rotaryAngles`; with "selected" `outputIndices` int64 [selected];
 * and `pastMask` float32 [1, capacity] if the runtime's fused operator does not support the head size.
 */
export function cachedLayerPiece(
  source: WeightSource,
  config: LlamaConfig,
  { index, quantization, mapped, outputs = "all" }: CachedLayerOptions,
): CachedPiece {
  const { graph, x, w } = createGraph(source, config, { quantization, mapped, batch: 1 });
  const { numKeyValueHeads: heads, headDim } = config;
  const input = (name: string, shape: (string | number)[]) => graph.input(name, "float32", shape);
  const table = (name: string) => input(name, ["positions", headDim / 2]);
  const mask = hasGroupQueryAttention(headDim)
    ? undefined
    : causalMask(graph, "sequence", input("pastMask", [1, "capacity"]));
  const context = {
    positions: graph.input("positions", "int64", [1, "sequence"]),
    mask,
    rotary: { cos: table("cos"), sin: table("sin") },
    past: {
      keys: input("keys", [1, heads, "capacity", headDim]),
      values: input("values", [1, heads, "capacity", headDim]),
    },
    outputIndices: outputs === "selected" ? graph.input("outputIndices", "int64", ["selected"]) : undefined,
  };
  const layer = w.at("model.layers").at(index);
  const { hidden, cache } = graph.scope(`layers.${index}`, () => llamaLayer(layer, x, context, config));
  return { graph, x, out: hidden, ...cache };
}

/**
 * The loss after the layers: `out` is the negative log-likelihood of each target token, [targets]. The other inputs are `targetIndices`
 * int64 [targets], the indices into [batch * sequence] of the positions that predict them, and `targetIds` int64 [targets].
 */
export function headPiece(source: WeightSource, config: LlamaConfig, { quantization }: PieceOptions = {}): Piece {
  const { graph, x, w } = createGraph(source, config, { quantization });
  const indices = graph.input("targetIndices", "int64", ["targets"]);
  const rows = gather(reshape(x, [mulDims(x.dim(0), x.dim(1)), config.hiddenSize]), indices);
  const predicting = rmsNorm(w.at("model.norm"), rows, config.rmsNormEps);
  return {
    graph,
    x,
    out: negativeLogLikelihood(w, predicting, graph.input("targetIds", "int64", ["targets"]), config),
  };
}

/** The output layer after the layers: `x` [selected, hiddenSize] -> `out`, the logits of the next token, [selected, vocabSize]. */
export function logitsPiece(source: WeightSource, config: LlamaConfig, { quantization }: PieceOptions = {}): Piece {
  const graph = new Graph();
  const w = new Weights(graph, source, { quantization });
  const x = graph.input("x", "float32", ["selected", config.hiddenSize]);
  return { graph, x, out: logits(w, rmsNorm(w.at("model.norm"), x, config.rmsNormEps), config) };
}

function createGraph(
  source: WeightSource,
  config: LlamaConfig,
  { quantization, mapped, batch = "batch" }: Partial<CachedLayerOptions> & { readonly batch?: Dim },
) {
  const graph = new Graph({ mapped });
  const x = graph.input("x", "float32", [batch, "sequence", config.hiddenSize]);
  return { graph, x, w: new Weights(graph, source, { quantization }) };
}
