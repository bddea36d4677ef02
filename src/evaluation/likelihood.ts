/**
 * How much a caption depends on its image: the loss of each caption given its own image and given every other one.
 * A model that looks finds the own image's loss the smallest.
 */

import type { ImageTextPair } from "../data/dataset.ts";
import { readBytes } from "../files/file.ts";
import { toPositions } from "../generation/generate.ts";
import { KVCache } from "../generation/kv-cache.ts";
import { decoderFeeds, indices, type Position } from "../generation/language-model.ts";
import { openImageEncoder } from "../generation/load.ts";
import { readImage } from "../images/decode.ts";
import type { OpenLlama } from "../models/llama-folder.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import { Session, type SessionOptions } from "../runtime/session.ts";
import type { Quantization } from "../tensor/quant/quantization.ts";
import { cleanCaption, parsePrompt } from "../tokenizers/prompts.ts";
import { lossGraph } from "./perplexity.ts";
import { computeRankMetrics, type RankMetrics } from "./retrieval.ts";

/** Images that are read side by side; more need more memory and are hardly faster. */
const batch = 25;

/** Gives the loss of texts after images. Each image and the words before the text are read once. */
class LikelihoodScorer {
  private readonly session: Session;
  private readonly llm: OpenLlama;
  private readonly caches: KVCache[];

  private constructor(session: Session, llm: OpenLlama, caches: KVCache[]) {
    this.session = session;
    this.llm = llm;
    this.caches = caches;
  }

  /**
   * @param prompts for each image, all positions before the text whose loss is wanted but the last one, of equal length
   */
  static async create(
    llm: OpenLlama,
    prompts: readonly (readonly Position[])[],
    { quantization, ...options }: SessionOptions & { readonly quantization?: Quantization } = {},
  ): Promise<LikelihoodScorer> {
    const { weights, outputs: wanted } = lossGraph(llm, quantization);
    const session = await Session.create<string>(weights.graph, wanted, options);
    const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = llm.config;
    const caches: KVCache[] = [];
    for (let i = 0; i < prompts.length; i += batch) {
      const part = prompts.slice(i, i + batch);
      const filled = new KVCache({ layers, kvHeads, headDim }, part.length);
      const head = { wanted: indices([1], [0]), targets: indices([1], [0]) };
      const outputs = await session.run({ ...decoderFeeds(part, filled, llm.config), ...head });
      filled.append(outputs, part[0]?.length ?? 0);
      caches.push(filled);
    }
    return new LikelihoodScorer(session, llm, caches);
  }

  /**
   * The loss of each of a text's tokens after each image, [images][tokens].
   *
   * @param first the position before the text, which predicts its first token
   * @param text at least one token
   */
  async score(first: Position, text: readonly number[]): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (const cache of this.caches) {
      const sequences = Array.from({ length: cache.batch }, () => [first, ...text.slice(0, -1)]);
      const count = cache.batch * text.length;
      const { losses } = await this.session.run({
        ...decoderFeeds(sequences, cache, this.llm.config),
        wanted: indices(
          [count],
          Array.from({ length: count }, (_, i) => i),
        ),
        targets: indices(
          [count],
          sequences.flatMap(() => text),
        ),
      });
      const values = losses?.data as Float32Array;
      for (let i = 0; i < cache.batch; i++) all.push(values.subarray(i * text.length, (i + 1) * text.length));
    }
    return all;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}

/** What `likelihood` finds, over all captions; ranks are the places of the own image among all, the most likely first. */
export interface LikelihoodReport extends RankMetrics {
  readonly images: number;
  readonly captions: number;
  /** Mean loss of a caption's tokens given its own image, the end symbol counted as a token. */
  readonly matchedLoss: number;
  /** The same for the words alone, without the end symbol. */
  readonly matchedLossWithoutEos: number;
  /** The same, given another image; the mean over all others. */
  readonly mismatchedLoss: number;
}

/** One caption: the mean losses given each image, which of them is its own, and that one's without the end symbol. */
export interface CaptionLosses {
  readonly own: number;
  readonly losses: readonly number[];
  readonly withoutEnd: number;
}

/** Summarises the losses of all captions. @throws Error if there are none */
export function summarize(captions: readonly CaptionLosses[]): LikelihoodReport {
  const [any] = captions;
  if (!any) throw new Error("There is no caption to evaluate");
  const rightLosses = captions.map(({ own, losses }) => losses[own] as number);
  const wrongLosses = captions.flatMap(({ own, losses }) => losses.filter((_, i) => i !== own));
  const ranks = captions.map(({ own, losses }) => 1 + losses.filter((loss) => loss < (losses[own] as number)).length);
  return {
    images: any.losses.length,
    captions: captions.length,
    matchedLoss: mean(rightLosses),
    matchedLossWithoutEos: mean(captions.map(({ withoutEnd }) => withoutEnd)),
    mismatchedLoss: mean(wrongLosses),
    ...computeRankMetrics(ranks),
  };
}

/** The arithmetic mean. */
function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  return sum / values.length;
}

// The likelihood benchmark over a folder of images with captions.

export interface LikelihoodOptions extends SessionOptions {
  /** Of the language model's matrices; by default as the model folder says. */
  readonly quantization?: Quantization;
  /** Captions of each image that are scored; all by default. */
  readonly captionsPerImage?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Scores every caption after every image, in the form in which the model describes images. Captions are cleaned as in
 * the first training stage, and the end symbol counts as a token, as in training; images are ranked by the mean loss.
 */
export async function evaluateLikelihood(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  { captionsPerImage = Number.POSITIVE_INFINITY, quantization, onProgress, signal, ...session }: LikelihoodOptions = {},
): Promise<LikelihoodReport> {
  const { tokenizer } = folder.llm;
  const end = tokenizer.encode(folder.describe.stop[0] ?? "");
  const prompts = await readPrompts(folder, pairs, session);
  const last = prompts[0]?.at(-1);
  if (last === undefined) throw new Error("There are no images to evaluate");
  const scorer = await LikelihoodScorer.create(
    folder.llm,
    prompts.map((prompt) => prompt.slice(0, -1)),
    { ...session, quantization: quantization ?? folder.quantization },
  );
  try {
    const captions = pairs.flatMap(({ texts }, own) =>
      texts
        .slice(0, captionsPerImage)
        .map((text) => ({ own, ids: tokenizer.encode(` ${cleanCaption(text)}`) }))
        .filter(({ ids }) => ids.length > 0),
    );
    const results: CaptionLosses[] = [];
    for (const { own, ids } of captions) {
      signal?.throwIfAborted();
      const tokens = await scorer.score(last, [...ids, ...end]);
      const withoutEnd = mean(tokens[own]?.subarray(0, ids.length) ?? []);
      results.push({ own, losses: tokens.map(mean), withoutEnd });
      onProgress?.(results.length, captions.length);
    }
    return summarize(results);
  } finally {
    await scorer.close();
  }
}

/** For each image all that stands before its caption; these end in the same words, so their last positions agree. */
async function readPrompts(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  session: SessionOptions,
): Promise<Position[][]> {
  const reader = await openImageEncoder(folder, session);
  try {
    const { prompt, beginsWith } = folder.describe;
    const parsed = parsePrompt(prompt + beginsWith);
    const prompts: Position[][] = [];
    for (const { name, image } of pairs) {
      const tokens = await reader.encode(await readImage(await readBytes(image), { name }));
      prompts.push(toPositions(parsed, [tokens], folder.llm.tokenizer));
    }
    return prompts;
  } finally {
    await reader.close();
  }
}
