/** A LLaMA in pieces, each a graph of its own: for models that are too large to be one. */
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

/** A piece of a network between two values. */
export interface Piece {
  readonly graph: Graph;
  /** The input `x`, float32 [batch, sequence, hiddenSize] where nothing else is said. */
  readonly x: Value;
  readonly out: Value;
}

interface PieceOptions {
  /** How matrices are multiplied. @default float32 */
  readonly quantization?: QuantizationPolicy;
}

interface LayerOptions extends PieceOptions {
  readonly index: number;
}

interface CachedLayerOptions extends LayerOptions {
  /** Whether constants stay in their files; see `Graph`. */
  readonly mapped?: boolean;
  /** Positions that `out` has: all, or those that the input `outputIndices` selects. @default "all" */
  readonly outputs?: "all" | "selected";
}

/** A model's dimensions, with as many rows of the rotary tables as its texts are long. */
export type PieceConfig = LlamaConfig & { readonly positions: number };

/**
 * Layer `index`: `out` is of the shape of `x`. Inputs beside it are `positions` int64 [batch, sequence] and `mask` float32
 * [batch, 1, sequence, sequence], which is added to the scores.
 */
export function layerPiece(source: WeightSource, config: PieceConfig, { index, quantization }: LayerOptions): Piece {
  const { graph, x, w } = begin(source, config, { quantization });
  const seen = {
    positions: graph.input("positions", "int64", ["batch", "sequence"]),
    mask: graph.input("mask", "float32", ["batch", 1, "sequence", "sequence"]),
    rotary: rotaryTables(graph, config.positions, config.headDim, config.ropeTheta),
  };
  const layer = w.at("model.layers").at(index);
  return { graph, x, out: graph.scope(`layers.${index}`, () => llamaLayer(layer, x, seen, config).hidden) };
}

/** A layer that reads behind a cache. */
export interface CachedPiece extends Piece {
  /** Of the new positions, [1, kvHeads, sequence, headDim]. */
  readonly keys: Value;
  readonly values: Value;
}

/**
 * Layer `index`, for one sequence's new positions behind a cache: `x` [1, sequence, hiddenSize]. With "selected", `out` is [selected, hiddenSize],
 * of the positions that the input `outputIndices` names, int64 [selected]. Inputs beside `x` are `positions` int64 [1, sequence], of which the first says
 * how much of the cache is used, `keys` and `values` float32 [1, kvHeads, capacity, headDim], the tables `cos` and `sin` of `rotaryAngles`, and
 * where the engine's own operator cannot be used `pastMask` float32 [1, capacity].
 */
export function cachedLayerPiece(
  source: WeightSource,
  config: LlamaConfig,
  { index, quantization, mapped, outputs = "all" }: CachedLayerOptions,
): CachedPiece {
  const { graph, x, w } = begin(source, config, { quantization, mapped, batch: 1 });
  const { numKeyValueHeads: heads, headDim } = config;
  const input = (name: string, shape: (string | number)[]) => graph.input(name, "float32", shape);
  const table = (name: string) => input(name, ["positions", headDim / 2]);
  const seen = {
    positions: graph.input("positions", "int64", [1, "sequence"]),
    ...(!hasGroupQueryAttention(headDim) && {
      mask: causalMask(graph, "sequence", input("pastMask", [1, "capacity"])),
    }),
    rotary: { cos: table("cos"), sin: table("sin") },
    past: {
      keys: input("keys", [1, heads, "capacity", headDim]),
      values: input("values", [1, heads, "capacity", headDim]),
    },
    places: outputs === "selected" ? graph.input("outputIndices", "int64", ["selected"]) : undefined,
  };
  const layer = w.at("model.layers").at(index);
  const { hidden, cache } = graph.scope(`layers.${index}`, () => llamaLayer(layer, x, seen, config));
  return { graph, x, out: hidden, ...cache };
}

/**
 * What comes after the layers: `out` is the negative log-likelihood of each target token, [targets]. Inputs beside `x` are
 * `targetPlaces` int64 [targets], the places of [batch * sequence] that predict them, and `targetIds` int64 [targets].
 */
export function headPiece(source: WeightSource, config: LlamaConfig, { quantization }: PieceOptions = {}): Piece {
  const { graph, x, w } = begin(source, config, { quantization });
  const places = graph.input("targetPlaces", "int64", ["targets"]);
  const rows = gather(reshape(x, [mulDims(x.dim(0), x.dim(1)), config.hiddenSize]), places);
  const predicting = rmsNorm(w.at("model.norm"), rows, config.rmsNormEps);
  return {
    graph,
    x,
    out: negativeLogLikelihood(w, predicting, graph.input("targetIds", "int64", ["targets"]), config),
  };
}

/** What comes after the layers: `x` [selected, hiddenSize] -> `out`, the scores of what follows each place, [selected, vocabSize]. */
export function logitsPiece(source: WeightSource, config: LlamaConfig, { quantization }: PieceOptions = {}): Piece {
  const graph = new Graph();
  const w = new Weights(graph, source, { quantization });
  const x = graph.input("x", "float32", ["selected", config.hiddenSize]);
  return { graph, x, out: logits(w, rmsNorm(w.at("model.norm"), x, config.rmsNormEps), config) };
}

function begin(
  source: WeightSource,
  config: LlamaConfig,
  { quantization, mapped, batch = "batch" }: Partial<CachedLayerOptions> & { readonly batch?: Dim },
) {
  const graph = new Graph({ mapped });
  const x = graph.input("x", "float32", [batch, "sequence", config.hiddenSize]);
  return { graph, x, w: new Weights(graph, source, { quantization }) };
}
