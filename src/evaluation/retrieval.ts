/** How well a model finds the pictures of captions, and the captions of pictures. */
import type { ImageTextPair } from "../data/dataset.ts";
import { decodePicture } from "../data/decoding/decode-picture.ts";
import { pictureId } from "../data/features/feature-cache.ts";
import { readSpan } from "../data/file-span.ts";
import { asItIs } from "../data/views.ts";
import { type Finder, type KnownPicture, picturesAtOnce } from "../retrieval/finder.ts";
import { Similarity } from "../retrieval/similarity.ts";
import { joinFloats, sizeOf } from "../tensor/array.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { candidates, chance, type RetrievalRanks, rankTable, type ScoreTable, type Shares } from "./retrieval-ranks.ts";

export interface RetrievalReport extends RetrievalRanks {
  readonly pictures: number;
  readonly captions: number;
  /** What drawing lots would reach. */
  readonly chance: RetrievalRanks<Shares>;
  /** After the nearest were looked at beside the text, where the model has a head for that. */
  readonly reranked?: RetrievalRanks & { readonly candidates: number };
  /** By how likely the model is to generate a caption from a picture. */
  readonly generated?: RetrievalRanks;
}

export interface RetrievalOptions extends Pick<SessionOptions, "device"> {
  /** Captions of each picture that are looked for; all by default. */
  readonly captionsPerPicture?: number;
  /** So many of the nearest are ranked again by the model's matching head, in both directions; 0 for none. */
  readonly rerank?: number;
  /** Whether pictures and captions are also ranked by how likely the one is to be generated from the other; each pair is looked at. */
  readonly generation?: boolean;
  readonly onProgress?: (
    what: "pictures embedded" | "pictures matched" | "pictures told",
    done: number,
    total: number,
  ) => void;
  readonly signal?: AbortSignal;
}

/** Embeds all pictures and captions, and ranks each against all. @throws Error naming a picture that cannot be read */
export async function evaluateRetrieval(
  finder: Finder,
  pairs: readonly ImageTextPair[],
  { captionsPerPicture, rerank = 16, generation = false, onProgress, signal, device }: RetrievalOptions = {},
): Promise<RetrievalReport> {
  const count = finder.match ? rerank : 0;
  const texts = pairs.map((pair) => pair.texts.slice(0, captionsPerPicture));
  const owners = texts.flatMap((own, picture) => own.map(() => picture));
  const captions = texts.flat();
  const ids: string[] = [];
  const vectors = new Float32Array(pairs.length * sizeOf(finder.shape));
  for (let start = 0; start < pairs.length; start += picturesAtOnce) {
    signal?.throwIfAborted();
    const batch = await Promise.all(pairs.slice(start, start + picturesAtOnce).map((pair) => load(pair, finder)));
    ids.push(...batch.map(({ id }) => id));
    const pixels = batch.map((picture) => picture.pixels);
    const embedded = await finder.embedPictures(pixels, count > 0 ? ids.slice(start) : undefined);
    vectors.set(embedded, start * sizeOf(finder.shape));
    onProgress?.("pictures embedded", ids.length, pairs.length);
  }
  const queries: Float32Array[] = [];
  for (const own of texts) {
    signal?.throwIfAborted();
    queries.push(...(await finder.embedTexts(own)));
  }
  const similarity = new Similarity("float32", finder.shape, device ? { device } : {});
  const scores = await similarity.of(vectors, joinFloats(queries));
  await similarity.release();
  const table: ScoreTable = { pictures: pairs.length, owners, scores };
  const known = (picture: number): KnownPicture => ({
    id: ids[picture] as string,
    pixels: async () => (await load(pairs[picture] as ImageTextPair, finder)).pixels,
  });
  const told = generation ? await generated(finder, table, captions, known, { onProgress, signal }) : undefined;
  const report = {
    pictures: pairs.length,
    captions: captions.length,
    ...rankTable(table),
    chance: chance(table),
    ...(told && { generated: told }),
  };
  if (count === 0) return report;

  const logits: ReadonlyMap<number, number>[] = [];
  for (const [picture, chosen] of candidates(table, count).entries()) {
    const asked = [...chosen].map((caption) => ({ picture: known(picture), text: captions[caption] as string }));
    const matches = (await finder.match?.(asked, signal)) ?? [];
    logits.push(new Map([...chosen].map((caption, i) => [caption, matches[i]?.logit ?? Number.NaN])));
    onProgress?.("pictures matched", logits.length, pairs.length);
  }
  const score = (picture: number, caption: number) =>
    (scores[picture * captions.length + caption] as number) + (logits[picture]?.get(caption) ?? Number.NaN);
  return { ...report, reranked: { candidates: count, ...rankTable(table, { count, score }) } };
}

/** Ranks by likelihoods. A caption that is likely of any picture is no sign of one: its mean over all pictures is taken off. */
async function generated(
  finder: Finder,
  table: ScoreTable,
  captions: readonly string[],
  known: (picture: number) => KnownPicture,
  { onProgress, signal }: Pick<RetrievalOptions, "onProgress" | "signal">,
): Promise<RetrievalRanks> {
  if (!finder.likelihoods) throw new Error("This model generates no captions by itself; leave --generation out");
  const scores = new Float32Array(table.pictures * captions.length);
  for (let picture = 0; picture < table.pictures; picture++) {
    const pairs = captions.map((text) => ({ picture: known(picture), text }));
    scores.set(await finder.likelihoods(pairs, signal), picture * captions.length);
    onProgress?.("pictures told", picture + 1, table.pictures);
  }
  captions.forEach((_, caption) => {
    let mean = 0;
    for (let picture = 0; picture < table.pictures; picture++) {
      mean += (scores[picture * captions.length + caption] as number) / table.pictures;
    }
    for (let picture = 0; picture < table.pictures; picture++) {
      const at = picture * captions.length + caption;
      scores[at] = (scores[at] as number) - mean;
    }
  });
  return rankTable({ ...table, scores });
}

async function load(
  { name, picture }: ImageTextPair,
  { spec }: Finder,
): Promise<{ readonly id: string; readonly pixels: Float32Array }> {
  const bytes = await readSpan(picture);
  return { id: pictureId(bytes), pixels: await decodePicture({ name, bytes, view: asItIs, spec }) };
}
