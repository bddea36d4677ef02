/**
 * Measures whether captions depend on their images: the loss of each caption given its own image and given every other image.
 * A model that uses the image assigns the lowest loss to its own.
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

/** Images per batch. Larger batches need more memory and are hardly faster. */
const batchSize = 25;

/** Computes the loss of texts after image prompts. Each prompt is prefilled once. */
class LikelihoodScorer {
  private readonly session: Session;
  private readonly llm: OpenLlama;
  private readonly caches: KVCache[];

  private constructor(session: Session, llm: OpenLlama, caches: KVCache[]) {
    this.session = session;
    this.llm = llm;
    this.caches = caches;
  }

  /** @param prompts for each image, the positions before the text without the last one; all of equal length */
  static async create(
    llm: OpenLlama,
    prompts: readonly (readonly Position[])[],
    { quantization, ...options }: SessionOptions & { readonly quantization?: Quantization } = {},
  ): Promise<LikelihoodScorer> {
    const { weights, outputs: graphOutputs } = lossGraph(llm, quantization);
    const session = await Session.create<string>(weights.graph, graphOutputs, options);
    const { numHiddenLayers: layers, numKeyValueHeads: kvHeads, headDim } = llm.config;
    const caches: KVCache[] = [];
    for (let i = 0; i < prompts.length; i += batchSize) {
      const batch = prompts.slice(i, i + batchSize);
      const cache = new KVCache({ layers, kvHeads, headDim }, batch.length);
      // The graph needs at least one target, whose loss is not used.
      const unused = { outputIndices: indices([1], [0]), targets: indices([1], [0]) };
      const outputs = await session.run({ ...decoderFeeds(batch, cache, llm.config), ...unused });
      cache.append(outputs, batch[0]?.length ?? 0);
      caches.push(cache);
    }
    return new LikelihoodScorer(session, llm, caches);
  }

  /**
   * @param first the position before the text, which predicts its first token
   * @param text at least one token id
   * @returns loss of each token after each image, [images][tokens]
   */
  async score(first: Position, text: readonly number[]): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (const cache of this.caches) {
      const sequences = Array.from({ length: cache.batch }, () => [first, ...text.slice(0, -1)]);
      const count = cache.batch * text.length;
      const { losses } = await this.session.run({
        ...decoderFeeds(sequences, cache, this.llm.config),
        outputIndices: indices(
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

/** Means over all captions, and metrics of the rank of a caption's own image among all images by loss. */
export interface LikelihoodReport extends RankMetrics {
  readonly images: number;
  readonly captions: number;
  /** Mean token loss given the caption's own image, end-of-sequence token included. */
  readonly matchedLoss: number;
  /** The same without the end-of-sequence token. */
  readonly matchedLossWithoutEos: number;
  /** Mean token loss given each other image, end-of-sequence token included. */
  readonly mismatchedLoss: number;
}

export interface CaptionLosses {
  /** Index of the caption's own image. */
  readonly own: number;
  /** Mean token loss given each image. */
  readonly losses: readonly number[];
  /** Mean token loss given its own image, without the end-of-sequence token. */
  readonly withoutEnd: number;
}

/** Summarizes the losses of all captions. @throws Error if there are none */
export function summarize(captions: readonly CaptionLosses[]): LikelihoodReport {
  const [first] = captions;
  if (!first) throw new Error("The dataset has no captions to evaluate.");
  const matchedLosses = captions.map(({ own, losses }) => losses[own] as number);
  const mismatchedLosses = captions.flatMap(({ own, losses }) => losses.filter((_, i) => i !== own));
  const ranks = captions.map(({ own, losses }) => 1 + losses.filter((loss) => loss < (losses[own] as number)).length);
  return {
    images: first.losses.length,
    captions: captions.length,
    matchedLoss: mean(matchedLosses),
    matchedLossWithoutEos: mean(captions.map(({ withoutEnd }) => withoutEnd)),
    mismatchedLoss: mean(mismatchedLosses),
    ...computeRankMetrics(ranks),
  };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  return sum / values.length;
}

export interface LikelihoodOptions extends SessionOptions {
  /** Quantization of the language model. @default that of the model folder */
  readonly quantization?: Quantization;
  /** Captions to evaluate per image. @default all */
  readonly captionsPerImage?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Computes the loss of every caption given every image, with the prompt for describing images. Captions are cleaned as in the
 * first training stage, and the end-of-sequence token counts, as in training. Images are ranked by the mean token loss.
 */
export async function evaluateLikelihood(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  { captionsPerImage = Number.POSITIVE_INFINITY, quantization, onProgress, signal, ...session }: LikelihoodOptions = {},
): Promise<LikelihoodReport> {
  const { tokenizer } = folder.llm;
  const end = tokenizer.encode(folder.describe.stop[0] ?? "");
  const prompts = await createPrompts(folder, pairs, session);
  const last = prompts[0]?.at(-1);
  if (last === undefined) throw new Error("The dataset has no images to evaluate.");
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

/** The positions before the caption of each image. All end in the same words, so their last positions are equal. */
async function createPrompts(
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
