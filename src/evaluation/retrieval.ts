/** How well a model finds the images of captions, and the captions of images. */

import type { ImageTextPair } from "../data/dataset.ts";
import { decodeImage, originalView } from "../data/decoder.ts";
import { imageId } from "../data/feature-cache.ts";
import { readBytes } from "../files/file.ts";
import { type CandidateImage, imageBatchSize, type RetrievalModel } from "../retrieval/retrieval-model.ts";
import { Similarity, topIndices } from "../retrieval/similarity.ts";
import type { SessionOptions } from "../runtime/session.ts";
import { concatFloat32, sizeOf } from "../tensor/array.ts";

// Places among all, in a few numbers.

/** Of the places at which things stand that belong together, the best first. */
export interface RankMetrics {
  readonly medianRank: number;
  /** Share of those that are among the first 1, 5 and 10. */
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

// Where the image of each caption stands among all, and where the captions of each image do.

/** Places of what belongs together. */
export interface RetrievalMetrics<T = RankMetrics> {
  /** Where the own image stands among all, for each caption. */
  readonly textToImage: T;
  /** Where the best of the own captions stands among all, for each image. */
  readonly imageToText: T;
}

/** What is ranked: a score for each image and caption. */
export interface ScoreTable {
  readonly images: number;
  /** The place of its image, for each caption. */
  readonly owners: readonly number[];
  /** [images, captions] */
  readonly scores: Float32Array;
}

/** A better score for some pairs; they are ranked before the others. */
export type RerankScore = (image: number, caption: number) => number;

/** The pairs that are among the best `count` of a caption or of an image: for each image, captions. */
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
 * Ranks each caption's image and each image's captions. @param again the best so many are ranked once more, by another score
 * @throws Error if there are no captions
 */
export function rankTable(
  table: ScoreTable,
  again?: { readonly count: number; readonly score: RerankScore },
): RetrievalMetrics {
  const { owners } = table;
  if (owners.length === 0) throw new Error("There is no caption to evaluate");
  const ofCaptions = owners.map((own, caption) => {
    const scores = column(table, caption);
    return bestRank(scores, [own], again && { ...again, score: (image: number) => again.score(image, caption) });
  });
  const ofImages = ownCaptions(table).flatMap((own, image) => {
    if (own.length === 0) return [];
    const scores = row(table, image);
    return [bestRank(scores, own, again && { ...again, score: (caption: number) => again.score(image, caption) })];
  });
  return { textToImage: computeRankMetrics(ofCaptions), imageToText: computeRankMetrics(ofImages) };
}

/** What drawing lots would reach. */
export function chance({ images, owners }: Pick<ScoreTable, "images" | "owners">): RetrievalMetrics<RecallMetrics> {
  const counts = owners.reduce((all, own) => all.set(own, (all.get(own) ?? 0) + 1), new Map<number, number>());
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const shares = (among: (first: number) => number): RecallMetrics => ({
    recallAt1: among(1),
    recallAt5: among(5),
    recallAt10: among(10),
  });
  return {
    textToImage: shares((first) => anyAmong(first, 1, images)),
    imageToText: shares((first) => mean([...counts.values()].map((own) => anyAmong(first, own, owners.length)))),
  };
}

export type RecallMetrics = Omit<RankMetrics, "medianRank">;

/** The probability that one of `own` things is among the first when `all` are shuffled. */
function anyAmong(first: number, own: number, all: number): number {
  let none = 1;
  for (let i = 0; i < first; i++) none *= Math.max(0, all - own - i) / Math.max(1, all - i);
  return 1 - none;
}

/** The best place of those that are looked for; of equal scores, all count as one. */
function bestRank(
  scores: Float32Array,
  wanted: readonly number[],
  again?: { readonly count: number; readonly score: (place: number) => number },
): number {
  const higher = (than: number) => scores.reduce((count, score) => count + (score > than ? 1 : 0), 0);
  const best = Math.max(...wanted.map((place) => scores[place] as number));
  if (!again) return 1 + higher(best);
  const first = topIndices(scores, again.count);
  const second = new Map(first.map((place) => [place, again.score(place)]));
  const among = wanted.flatMap((place) => second.get(place) ?? []);
  if (among.length === 0) return Math.max(first.length, higher(best)) + 1;
  const bestAgain = Math.max(...among);
  return 1 + [...second.values()].filter((score) => score > bestAgain).length;
}

function ownCaptions({ images, owners }: ScoreTable): number[][] {
  const own: number[][] = Array.from({ length: images }, () => []);
  owners.forEach((image, caption) => {
    own[image]?.push(caption);
  });
  return own;
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
  /** What drawing lots would reach. */
  readonly chance: RetrievalMetrics<RecallMetrics>;
  /** After the nearest were looked at beside the text, where the model has a head for that. */
  readonly reranked?: RetrievalMetrics & { readonly candidates: number };
  /** By how likely the model is to generate a caption from an image. */
  readonly generated?: RetrievalMetrics;
}

export interface RetrievalOptions extends Pick<SessionOptions, "device"> {
  /** Captions of each image that are looked for; all by default. */
  readonly captionsPerImage?: number;
  /** So many of the nearest are ranked again by the model's matching head, in both directions; 0 for none. */
  readonly rerank?: number;
  /** Whether images and captions are also ranked by how likely the one is to be generated from the other; each pair is looked at. */
  readonly generation?: boolean;
  readonly onProgress?: (
    what: "images embedded" | "images matched" | "images told",
    done: number,
    total: number,
  ) => void;
  readonly signal?: AbortSignal;
}

/** Embeds all images and captions, and ranks each against all. @throws Error naming an image that cannot be read */
export async function evaluateRetrieval(
  finder: RetrievalModel,
  pairs: readonly ImageTextPair[],
  { captionsPerImage, rerank = 16, generation = false, onProgress, signal, device }: RetrievalOptions = {},
): Promise<RetrievalReport> {
  const count = finder.match ? rerank : 0;
  const texts = pairs.map((pair) => pair.texts.slice(0, captionsPerImage));
  const owners = texts.flatMap((own, image) => own.map(() => image));
  const captions = texts.flat();
  const ids: string[] = [];
  const vectors = new Float32Array(pairs.length * sizeOf(finder.shape));
  for (let start = 0; start < pairs.length; start += imageBatchSize) {
    signal?.throwIfAborted();
    const batch = await Promise.all(pairs.slice(start, start + imageBatchSize).map((pair) => load(pair, finder)));
    ids.push(...batch.map(({ id }) => id));
    const pixels = batch.map((image) => image.pixels);
    const embedded = await finder.embedImages(pixels, count > 0 ? ids.slice(start) : undefined);
    vectors.set(embedded, start * sizeOf(finder.shape));
    onProgress?.("images embedded", ids.length, pairs.length);
  }
  const queries: Float32Array[] = [];
  for (const own of texts) {
    signal?.throwIfAborted();
    queries.push(...(await finder.embedTexts(own)));
  }
  const similarity = new Similarity("float32", finder.shape, device ? { device } : {});
  const scores = await similarity.score(vectors, concatFloat32(queries));
  await similarity.close();
  const table: ScoreTable = { images: pairs.length, owners, scores };
  const known = (image: number): CandidateImage => ({
    id: ids[image] as string,
    pixels: async () => (await load(pairs[image] as ImageTextPair, finder)).pixels,
  });
  const told = generation ? await generated(finder, table, captions, known, { onProgress, signal }) : undefined;
  const report = {
    images: pairs.length,
    captions: captions.length,
    ...rankTable(table),
    chance: chance(table),
    ...(told && { generated: told }),
  };
  if (count === 0) return report;

  const logits: ReadonlyMap<number, number>[] = [];
  for (const [image, chosen] of candidates(table, count).entries()) {
    const asked = [...chosen].map((caption) => ({ image: known(image), text: captions[caption] as string }));
    const matches = (await finder.match?.(asked, signal)) ?? [];
    logits.push(new Map([...chosen].map((caption, i) => [caption, matches[i]?.logit ?? Number.NaN])));
    onProgress?.("images matched", logits.length, pairs.length);
  }
  const score = (image: number, caption: number) =>
    (scores[image * captions.length + caption] as number) + (logits[image]?.get(caption) ?? Number.NaN);
  return { ...report, reranked: { candidates: count, ...rankTable(table, { count, score }) } };
}

/** Ranks by likelihoods. A caption that is likely of any image is no sign of one: its mean over all images is taken off. */
async function generated(
  finder: RetrievalModel,
  table: ScoreTable,
  captions: readonly string[],
  known: (image: number) => CandidateImage,
  { onProgress, signal }: Pick<RetrievalOptions, "onProgress" | "signal">,
): Promise<RetrievalMetrics> {
  if (!finder.captionLogLikelihoods)
    throw new Error("This model generates no captions by itself; leave --generation out");
  const scores = new Float32Array(table.images * captions.length);
  for (let image = 0; image < table.images; image++) {
    const pairs = captions.map((text) => ({ image: known(image), text }));
    scores.set(await finder.captionLogLikelihoods(pairs, signal), image * captions.length);
    onProgress?.("images told", image + 1, table.images);
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

async function load(
  { name, image }: ImageTextPair,
  { spec }: RetrievalModel,
): Promise<{ readonly id: string; readonly pixels: Float32Array }> {
  const bytes = await readBytes(image);
  return { id: imageId(bytes), pixels: await decodeImage({ name, bytes, view: originalView, spec }) };
}
