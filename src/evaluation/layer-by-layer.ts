/**
 * A language model read one layer at a time, so that a large one takes little memory, and so that it is known in which
 * layer something breaks.
 */
import { indices } from "../chat/reading-feeds.ts";
import { llamaLayer, logits } from "../models/llama.ts";
import type { OpenLlama } from "../models/open-llama.ts";
import { causalMask } from "../nn/attention.ts";
import { rmsNorm } from "../nn/norm.ts";
import { rotaryTables } from "../nn/rotary.ts";
import { asStored, Weights } from "../nn/weights.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { neg } from "../tensor/elementwise.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { gatherElements } from "../tensor/lookup.ts";
import { logSoftmax } from "../tensor/reduce.ts";
import { evaluate, type SessionOptions } from "../tensor/session.ts";

export interface LayerwiseOptions extends SessionOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What came of reading: the mean loss of a token, or the layer whose output is no number. */
export type LayerwiseResult = { readonly loss: number } | { readonly brokenAt: string };

/** Reads texts side by side; matrices in stored blocks are multiplied so. @param texts of at least two ids each */
export async function readLayerByLayer(
  { checkpoint, config, tokenizer }: OpenLlama,
  texts: readonly (readonly number[])[],
  { signal, onProgress, ...session }: LayerwiseOptions = {},
): Promise<LayerwiseResult> {
  const length = Math.max(...texts.map((ids) => ids.length));
  const { hiddenSize, numHiddenLayers } = config;
  // What fills up a text comes after it, where it is not seen.
  const padded = texts.flatMap((ids) => Array.from({ length }, (_, i) => ids[i] ?? tokenizer.padId));
  const table = await checkpoint.readFloat32("model.embed_tokens.weight");
  const rows = new Float32Array(padded.length * hiddenSize);
  for (const [i, id] of padded.entries()) {
    rows.set(table.subarray(id * hiddenSize, (id + 1) * hiddenSize), i * hiddenSize);
  }
  let hidden: NdArray = ndarray("float32", [texts.length, length, hiddenSize], rows);
  if (!isNumbers(hidden)) return { brokenAt: "the table of input embeddings" };
  const positions = indices(
    [texts.length, length],
    padded.map((_, i) => i % length),
  );

  const run = async (write: (x: Value, w: Weights) => Value, feeds: Record<string, NdArray> = {}) => {
    signal?.throwIfAborted();
    const graph = new Graph();
    const x = graph.input("x", "float32", ["batch", "sequence", hiddenSize]);
    const out = write(x, new Weights(graph, checkpoint, asStored(checkpoint)));
    return (await evaluate(graph, { out }, { x: hidden, ...feeds }, session)).out;
  };
  for (let i = 0; i < numHiddenLayers; i++) {
    hidden = await run(
      (x, w) => {
        const { graph } = x;
        const seen = {
          positions: graph.input("positions", "int64", ["batch", "sequence"]),
          rotary: rotaryTables(graph, length, config.headDim, config.ropeTheta),
          mask: causalMask(graph, x.dim(1)),
        };
        return llamaLayer(w.at("model.layers").at(i), x, seen, config).hidden;
      },
      { positions },
    );
    if (!isNumbers(hidden)) return { brokenAt: `layer ${i} of ${numHiddenLayers}` };
    onProgress?.(i + 1, numHiddenLayers + 1);
  }
  const targets = padded.map((_, i) => ((i + 1) % length === 0 ? 0 : (padded[i + 1] ?? 0)));
  const losses = await run(
    (x, w) => {
      const ids = x.graph.input("targets", "int64", ["batch", "sequence", 1]);
      const scores = logits(w, rmsNorm(w.at("model.norm"), x, config.rmsNormEps), config);
      return neg(gatherElements(logSoftmax(scores), ids));
    },
    { targets: indices([texts.length, length, 1], targets) },
  );
  onProgress?.(numHiddenLayers + 1, numHiddenLayers + 1);
  const counted = texts.flatMap((ids, row) =>
    Array.from({ length: ids.length - 1 }, (_, i) => (losses.data as Float32Array)[row * length + i] ?? Number.NaN),
  );
  const loss = counted.reduce((sum, value) => sum + value, 0) / counted.length;
  return Number.isFinite(loss) ? { loss } : { brokenAt: "the output layer" };
}

function isNumbers({ data }: NdArray): boolean {
  return (data as Float32Array).every(Number.isFinite);
}
