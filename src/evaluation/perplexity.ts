/** Perplexity of a text, which shows what a quantization costs. */
import { KVCache } from "../generation/kv-cache.ts";
import { type DecoderGraph, decoderFeeds, decoderGraph, indices } from "../generation/language-model.ts";
import { logits } from "../models/llama.ts";
import type { OpenLlama } from "../models/llama-folder.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import type { Value } from "../tensor/graph.ts";
import { neg } from "../tensor/ops/elementwise.ts";
import { gatherElements } from "../tensor/ops/gather.ts";
import { reshape } from "../tensor/ops/layout.ts";
import { logSoftmax } from "../tensor/ops/reduce.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";

/**
 * The decoder's graph with the output `losses` [selected] instead of logits: the negative log-likelihood of the tokens `targets`
 * int64 [selected] at the positions `outputIndices`. Logits are computed as in generation, whatever the quantization.
 */
export function lossGraph(
  { checkpoint, config }: OpenLlama,
  quantization?: Quantization,
): { readonly outputs: Record<string, Value> } & Pick<DecoderGraph, "weights"> {
  const { weights, hidden, cache } = decoderGraph(checkpoint, config, quantization);
  const targets = reshape(weights.graph.input("targets", "int64", ["selected"]), ["selected", 1]);
  const logProbabilities = gatherElements(logSoftmax(logits(weights, hidden, config)), targets);
  return { weights, outputs: { losses: neg(reshape(logProbabilities, ["selected"])), ...cache } };
}

export interface PerplexityOptions extends SessionOptions {
  /** Quantization of the language model. @default float32 */
  readonly quantization?: Quantization;
  /** Context length in tokens. @default 512 */
  readonly window?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export interface PerplexityReport {
  /** Number of predicted tokens. */
  readonly tokens: number;
  /** Mean negative log-likelihood of a token. */
  readonly loss: number;
  /** exp(loss). */
  readonly perplexity: number;
}

/**
 * Computes the perplexity of a text in independent windows; the first token of each window is not predicted.
 * @throws Error if the text has fewer than two tokens
 */
export async function perplexity(
  llm: OpenLlama,
  text: string,
  { quantization, window = 512, onProgress, signal, ...session }: PerplexityOptions = {},
): Promise<PerplexityReport> {
  const { config, tokenizer } = llm;
  const begin = tokenizer.bosId === undefined ? [] : [tokenizer.bosId];
  const ids = tokenizer.encode(text);
  const length = Math.min(window, config.maxPositionEmbeddings) - begin.length;
  const windows: number[][] = [];
  for (let start = 0; start < ids.length; start += length) {
    const own = [...begin, ...ids.slice(start, start + length)];
    if (own.length > 1) windows.push(own);
  }
  if (windows.length === 0) throw new Error("The text is too short, expected at least two tokens.");
  const { weights, outputs: graphOutputs } = lossGraph(llm, quantization);
  const lossSession = await Session.create<string>(weights.graph, graphOutputs, session);
  const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = config;
  let [sum, tokens] = [0, 0];
  try {
    for (const [done, own] of windows.entries()) {
      signal?.throwIfAborted();
      const predicted = own.length - 1;
      const outputs = await lossSession.run({
        ...decoderFeeds([own.slice(0, -1)], new KVCache({ layers, kvHeads, headDim }, 1), config),
        outputIndices: indices(
          [predicted],
          own.slice(1).map((_, i) => i),
        ),
        targets: indices([predicted], own.slice(1)),
      });
      const losses = outputs.losses?.data as Float32Array;
      sum += losses.reduce((total, loss) => total + loss, 0);
      tokens += predicted;
      onProgress?.(done + 1, windows.length);
    }
  } finally {
    await lossSession.close();
  }
  return { tokens, loss: sum / tokens, perplexity: Math.exp(sum / tokens) };
}
