/** Where the picture of each caption stands among all, and where the captions of each picture do. */
import { largest } from "../retrieval/similarity.ts";
import { type RankSummary, summarizeRanks } from "./ranks.ts";

/** Places of what belongs together. */
export interface RetrievalRanks<T = RankSummary> {
  /** Where the own picture stands among all, for each caption. */
  readonly picturesByCaption: T;
  /** Where the best of the own captions stands among all, for each picture. */
  readonly captionsByPicture: T;
}

/** What is ranked: a score for each picture and caption. */
export interface ScoreTable {
  readonly pictures: number;
  /** The place of its picture, for each caption. */
  readonly owners: readonly number[];
  /** [pictures, captions] */
  readonly scores: Float32Array;
}

/** A better score for some pairs; they are ranked before the others. */
export type SecondScore = (picture: number, caption: number) => number;

/** The pairs that are among the best `count` of a caption or of a picture: for each picture, captions. */
export function candidates(table: ScoreTable, count: number): ReadonlySet<number>[] {
  const chosen = Array.from({ length: table.pictures }, () => new Set<number>());
  table.owners.forEach((_, caption) => {
    for (const picture of largest(column(table, caption), count)) chosen[picture]?.add(caption);
  });
  chosen.forEach((captions, picture) => {
    for (const caption of largest(row(table, picture), count)) captions.add(caption);
  });
  return chosen;
}

/**
 * Ranks each caption's picture and each picture's captions. @param again the best so many are ranked once more, by another score
 * @throws Error if there are no captions
 */
export function rankTable(
  table: ScoreTable,
  again?: { readonly count: number; readonly score: SecondScore },
): RetrievalRanks {
  const { owners } = table;
  if (owners.length === 0) throw new Error("There is no caption to evaluate");
  const ofCaptions = owners.map((own, caption) => {
    const scores = column(table, caption);
    return bestRank(scores, [own], again && { ...again, score: (picture: number) => again.score(picture, caption) });
  });
  const ofPictures = ownCaptions(table).flatMap((own, picture) => {
    if (own.length === 0) return [];
    const scores = row(table, picture);
    return [bestRank(scores, own, again && { ...again, score: (caption: number) => again.score(picture, caption) })];
  });
  return { picturesByCaption: summarizeRanks(ofCaptions), captionsByPicture: summarizeRanks(ofPictures) };
}

/** What drawing lots would reach. */
export function chance({ pictures, owners }: Pick<ScoreTable, "pictures" | "owners">): RetrievalRanks<Shares> {
  const counts = owners.reduce((all, own) => all.set(own, (all.get(own) ?? 0) + 1), new Map<number, number>());
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const shares = (among: (first: number) => number): Shares => ({
    first: among(1),
    firstFive: among(5),
    firstTen: among(10),
  });
  return {
    picturesByCaption: shares((first) => anyAmong(first, 1, pictures)),
    captionsByPicture: shares((first) => mean([...counts.values()].map((own) => anyAmong(first, own, owners.length)))),
  };
}

export type Shares = Omit<RankSummary, "medianRank">;

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
  const first = largest(scores, again.count);
  const second = new Map(first.map((place) => [place, again.score(place)]));
  const among = wanted.flatMap((place) => second.get(place) ?? []);
  if (among.length === 0) return Math.max(first.length, higher(best)) + 1;
  const bestAgain = Math.max(...among);
  return 1 + [...second.values()].filter((score) => score > bestAgain).length;
}

function ownCaptions({ pictures, owners }: ScoreTable): number[][] {
  const own: number[][] = Array.from({ length: pictures }, () => []);
  owners.forEach((picture, caption) => {
    own[picture]?.push(caption);
  });
  return own;
}

function row({ scores, owners }: ScoreTable, picture: number): Float32Array {
  return scores.subarray(picture * owners.length, (picture + 1) * owners.length);
}

function column({ scores, owners, pictures }: ScoreTable, caption: number): Float32Array {
  return Float32Array.from({ length: pictures }, (_, picture) => scores[picture * owners.length + caption] as number);
}
