/** Runs a language model one layer at a time: needs little memory, and locates the layer whose output is not finite. */
import { indices } from "../generation/language-model.ts";
import type { OpenLlama } from "../models/llama-folder.ts";
import { headPiece, layerPiece, type Piece } from "../models/llama-layers.ts";
import { masked } from "../nn/attention.ts";
import { evaluate, type SessionOptions } from "../runtime/session.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { native } from "../tensor/quant/quantization.ts";

export interface LayerwiseOptions extends SessionOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Mean loss of a token, or the first part of the model with an output that is not finite. */
export type LayerwiseResult = { readonly loss: number } | { readonly brokenAt: string };

/** Computes the loss of a batch of texts, with quantized matrices as they are stored. @param texts token ids, at least two each */
export async function computeLayerwiseLoss(
  { checkpoint, config, tokenizer }: OpenLlama,
  texts: readonly (readonly number[])[],
  { signal, onProgress, ...session }: LayerwiseOptions = {},
): Promise<LayerwiseResult> {
  const length = Math.max(...texts.map((ids) => ids.length));
  const { hiddenSize, numHiddenLayers } = config;
  // Padding comes after the text, where the causal mask hides it.
  const padded = texts.flatMap((ids) => Array.from({ length }, (_, i) => ids[i] ?? tokenizer.padId));
  const table = await checkpoint.readFloat32("model.embed_tokens.weight");
  const rows = new Float32Array(padded.length * hiddenSize);
  for (const [i, id] of padded.entries()) {
    rows.set(table.subarray(id * hiddenSize, (id + 1) * hiddenSize), i * hiddenSize);
  }
  let hidden: NdArray = ndarray("float32", [texts.length, length, hiddenSize], rows);
  if (!isFiniteArray(hidden)) return { brokenAt: "the table of input embeddings" };
  const attention = {
    positions: indices(
      [texts.length, length],
      padded.map((_, i) => i % length),
    ),
    mask: causalMasks(texts.length, length),
  };
  // Every token but a text's first is predicted from the position before it.
  const predicting = texts.flatMap((ids, row) => ids.slice(1).map((id, i) => ({ id, index: row * length + i })));
  const targets = {
    targetIndices: indices(
      [predicting.length],
      predicting.map(({ index }) => index),
    ),
    targetIds: indices(
      [predicting.length],
      predicting.map(({ id }) => id),
    ),
  };

  const run = async ({ graph, out }: Piece, feeds: Record<string, NdArray>) => {
    signal?.throwIfAborted();
    return (await evaluate(graph, { out }, { x: hidden, ...feeds }, session)).out;
  };
  for (let i = 0; i < numHiddenLayers; i++) {
    hidden = await run(
      layerPiece(checkpoint, { ...config, positions: length }, { index: i, quantization: native }),
      attention,
    );
    if (!isFiniteArray(hidden)) return { brokenAt: `layer ${i} of ${numHiddenLayers}` };
    onProgress?.(i + 1, numHiddenLayers + 1);
  }
  const losses = (await run(headPiece(checkpoint, config, { quantization: native }), targets)).data as Float32Array;
  onProgress?.(numHiddenLayers + 1, numHiddenLayers + 1);
  const loss = losses.reduce((sum, value) => sum + value, 0) / losses.length;
  return Number.isFinite(loss) ? { loss } : { brokenAt: "the output layer" };
}

function causalMasks(batch: number, length: number): NdArray {
  const mask = new Float32Array(batch * length * length);
  for (let i = 0; i < mask.length; i++) if (i % length > Math.floor(i / length) % length) mask[i] = masked;
  return ndarray("float32", [batch, 1, length, length], mask);
}

function isFiniteArray({ data }: NdArray): boolean {
  return (data as Float32Array).every(Number.isFinite);
}
