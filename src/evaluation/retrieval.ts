/** Image-text retrieval: recall and median rank of the images of captions, and of the captions of images. */
import type { ImageTextPair } from "../data/dataset.ts";
import { decodeImage, originalView } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import { readBytes } from "../files/file.ts";
import { type CandidateImage, imageBatchSize, type RetrievalModel } from "../retrieval/retrieval-model.ts";
import { Similarity, topIndices } from "../retrieval/similarity.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { concatFloat32, sizeOf } from "../tensor/array.ts";

/** Ranks of the correct results, counted from 1, in a few numbers. */
export interface RankMetrics {
  readonly medianRank: number;
  /** Share of queries with a correct result among the first 1, 5 and 10 (R@1, R@5, R@10). */
  readonly recallAt1: number;
  readonly recallAt5: number;
  readonly recallAt10: number;
}

/** @param ranks counted from 1 */
export function computeRankMetrics(ranks: readonly number[]): RankMetrics {
  const share = (rank: number) => ranks.filter((r) => r <= rank).length / ranks.length;
  return { medianRank: median(ranks), recallAt1: share(1), recallAt5: share(5), recallAt10: share(10) };
}

/** The middle value, or the mean of the two in the middle. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export interface RetrievalMetrics<T = RankMetrics> {
  /** For each caption, the rank of its image among all images. */
  readonly textToImage: T;
  /** For each image, the rank of the best of its captions among all captions. */
  readonly imageToText: T;
}

/** A score for each pair of image and caption. */
export interface ScoreTable {
  readonly images: number;
  /** Index of the image of each caption. */
  readonly owners: readonly number[];
  /** [images, captions] */
  readonly scores: Float32Array;
}

/** Score for re-ranking a pair. Re-ranked candidates come before all others. */
export type RerankScore = (image: number, caption: number) => number;

/** Pairs among the best `count` of a caption or of an image, as a set of captions for each image. */
export function candidates(table: ScoreTable, count: number): ReadonlySet<number>[] {
  const chosen = Array.from({ length: table.images }, () => new Set<number>());
  table.owners.forEach((_, caption) => {
    for (const image of topIndices(column(table, caption), count)) chosen[image]?.add(caption);
  });
  chosen.forEach((captions, image) => {
    for (const caption of topIndices(row(table, image), count)) captions.add(caption);
  });
  return chosen;
}

/**
 * Ranks images for each caption, and captions for each image.
 * @param rerank re-ranks the best `count` by another score
 * @throws Error if there are no captions
 */
export function rankTable(
  table: ScoreTable,
  rerank?: { readonly count: number; readonly score: RerankScore },
): RetrievalMetrics {
  const { owners } = table;
  if (owners.length === 0) throw new Error("The dataset has no captions to evaluate.");
  const imageRanks = owners.map((owner, caption) => {
    const scores = column(table, caption);
    return bestRank(scores, [owner], rerank && { ...rerank, score: (image: number) => rerank.score(image, caption) });
  });
  const captionRanks = captionsByImage(table).flatMap((captions, image) => {
    if (captions.length === 0) return [];
    const scores = row(table, image);
    const score = (caption: number) => rerank?.score(image, caption) ?? Number.NaN;
    return [bestRank(scores, captions, rerank && { ...rerank, score })];
  });
  return { textToImage: computeRankMetrics(imageRanks), imageToText: computeRankMetrics(captionRanks) };
}

/** Expected recall of a random ranking. */
export function chance({ images, owners }: Pick<ScoreTable, "images" | "owners">): RetrievalMetrics<RecallMetrics> {
  const counts = owners.reduce((all, owner) => all.set(owner, (all.get(owner) ?? 0) + 1), new Map<number, number>());
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const recall = (atRank: (k: number) => number): RecallMetrics => ({
    recallAt1: atRank(1),
    recallAt5: atRank(5),
    recallAt10: atRank(10),
  });
  return {
    textToImage: recall((k) => hitProbability(k, 1, images)),
    imageToText: recall((k) => mean([...counts.values()].map((count) => hitProbability(k, count, owners.length)))),
  };
}

export type RecallMetrics = Omit<RankMetrics, "medianRank">;

/** Probability that at least one of `correct` items is among the first `k` of a random order of `total` items. */
function hitProbability(k: number, correct: number, total: number): number {
  let miss = 1;
  for (let i = 0; i < k; i++) miss *= Math.max(0, total - correct - i) / Math.max(1, total - i);
  return 1 - miss;
}

/** Best rank of the correct items. Ties share the better rank. */
function bestRank(
  scores: Float32Array,
  correct: readonly number[],
  rerank?: { readonly count: number; readonly score: (item: number) => number },
): number {
  const countAbove = (limit: number) => scores.reduce((count, score) => count + (score > limit ? 1 : 0), 0);
  const best = Math.max(...correct.map((item) => scores[item] as number));
  if (!rerank) return 1 + countAbove(best);
  const top = topIndices(scores, rerank.count);
  const reranked = new Map(top.map((item) => [item, rerank.score(item)]));
  const correctScores = correct.flatMap((item) => reranked.get(item) ?? []);
  if (correctScores.length === 0) return Math.max(top.length, countAbove(best)) + 1;
  const bestReranked = Math.max(...correctScores);
  return 1 + [...reranked.values()].filter((score) => score > bestReranked).length;
}

function captionsByImage({ images, owners }: ScoreTable): number[][] {
  const captions: number[][] = Array.from({ length: images }, () => []);
  owners.forEach((image, caption) => {
    captions[image]?.push(caption);
  });
  return captions;
}

function row({ scores, owners }: ScoreTable, image: number): Float32Array {
  return scores.subarray(image * owners.length, (image + 1) * owners.length);
}

function column({ scores, owners, images }: ScoreTable, caption: number): Float32Array {
  return Float32Array.from({ length: images }, (_, image) => scores[image * owners.length + caption] as number);
}

export interface RetrievalReport extends RetrievalMetrics {
  readonly images: number;
  readonly captions: number;
  /** Expected recall of a random ranking. */
  readonly chance: RetrievalMetrics<RecallMetrics>;
  /** After re-ranking with the image-text matching head, if the model has one. */
  readonly reranked?: RetrievalMetrics & { readonly candidates: number };
  /** Ranking by the likelihood of generating the caption from the image. */
  readonly generated?: RetrievalMetrics;
}

export interface RetrievalOptions extends Pick<SessionOptions, "device"> {
  /** Captions to evaluate per image. @default all */
  readonly captionsPerImage?: number;
  /** Candidates to re-rank with the matching head, in both directions; 0 turns re-ranking off. @default 16 */
  readonly rerank?: number;
  /** Also rank by the likelihood of generating the caption, which runs the model on every pair. @default false */
  readonly generation?: boolean;
  readonly onProgress?: (
    what: "images embedded" | "images matched" | "images scored",
    done: number,
    total: number,
  ) => void;
  readonly signal?: AbortSignal;
}

/** Embeds all images and captions and ranks all pairs. @throws Error naming an image that cannot be read */
export async function evaluateRetrieval(
  model: RetrievalModel,
  pairs: readonly ImageTextPair[],
  { captionsPerImage, rerank = 16, generation = false, onProgress, signal, device }: RetrievalOptions = {},
): Promise<RetrievalReport> {
  const count = model.match ? rerank : 0;
  const texts = pairs.map((pair) => pair.texts.slice(0, captionsPerImage));
  const owners = texts.flatMap((captions, image) => captions.map(() => image));
  const captions = texts.flat();
  const ids: string[] = [];
  const vectors = new Float32Array(pairs.length * sizeOf(model.shape));
  for (let start = 0; start < pairs.length; start += imageBatchSize) {
    signal?.throwIfAborted();
    const batch = await Promise.all(pairs.slice(start, start + imageBatchSize).map((pair) => loadImage(pair, model)));
    ids.push(...batch.map(({ id }) => id));
    const pixels = batch.map((image) => image.pixels);
    const embedded = await model.embedImages(pixels, count > 0 ? ids.slice(start) : undefined);
    vectors.set(embedded, start * sizeOf(model.shape));
    onProgress?.("images embedded", ids.length, pairs.length);
  }
  const queries: Float32Array[] = [];
  for (const imageCaptions of texts) {
    signal?.throwIfAborted();
    queries.push(...(await model.embedTexts(imageCaptions)));
  }
  const similarity = new Similarity("float32", model.shape, { device });
  const scores = await similarity.score(vectors, concatFloat32(queries));
  await similarity.close();
  const table: ScoreTable = { images: pairs.length, owners, scores };
  const candidate = (image: number): CandidateImage => ({
    id: ids[image] as string,
    pixels: async () => (await loadImage(pairs[image] as ImageTextPair, model)).pixels,
  });
  const report: RetrievalReport = {
    images: pairs.length,
    captions: captions.length,
    ...rankTable(table),
    chance: chance(table),
    generated: generation
      ? await rankByLikelihood(model, table, { captions, candidate, onProgress, signal })
      : undefined,
  };
  if (count === 0) return report;

  const logits: ReadonlyMap<number, number>[] = [];
  for (const [image, chosen] of candidates(table, count).entries()) {
    const candidatePairs = [...chosen].map((caption) => ({
      image: candidate(image),
      text: captions[caption] as string,
    }));
    const matches = (await model.match?.(candidatePairs, signal)) ?? [];
    logits.push(new Map([...chosen].map((caption, i) => [caption, matches[i]?.logit ?? Number.NaN])));
    onProgress?.("images matched", logits.length, pairs.length);
  }
  const score = (image: number, caption: number) =>
    (scores[image * captions.length + caption] as number) + (logits[image]?.get(caption) ?? Number.NaN);
  return { ...report, reranked: { candidates: count, ...rankTable(table, { count, score }) } };
}

interface LikelihoodRanking extends Pick<RetrievalOptions, "onProgress" | "signal"> {
  readonly captions: readonly string[];
  readonly candidate: (image: number) => CandidateImage;
}

/** Ranks by the log-likelihood of captions. Subtracts each caption's mean over all images: some are likely for every image. */
async function rankByLikelihood(
  model: RetrievalModel,
  table: ScoreTable,
  { captions, candidate, onProgress, signal }: LikelihoodRanking,
): Promise<RetrievalMetrics> {
  if (!model.captionLogLikelihoods)
    throw new Error("This model cannot compute caption likelihoods. Omit --generation.");
  const scores = new Float32Array(table.images * captions.length);
  for (let image = 0; image < table.images; image++) {
    const pairs = captions.map((text) => ({ image: candidate(image), text }));
    scores.set(await model.captionLogLikelihoods(pairs, signal), image * captions.length);
    onProgress?.("images scored", image + 1, table.images);
  }
  captions.forEach((_, caption) => {
    let mean = 0;
    for (let image = 0; image < table.images; image++) {
      mean += (scores[image * captions.length + caption] as number) / table.images;
    }
    for (let image = 0; image < table.images; image++) {
      const at = image * captions.length + caption;
      scores[at] = (scores[at] as number) - mean;
    }
  });
  return rankTable({ ...table, scores });
}

async function loadImage(
  { name, image }: ImageTextPair,
  { spec }: RetrievalModel,
): Promise<{ readonly id: string; readonly pixels: Float32Array }> {
  const bytes = await readBytes(image);
  return { id: imageId(bytes), pixels: await decodeImage({ name, bytes, view: originalView, spec }) };
}
