/** How well a model's embeddings find the pictures of captions, and the captions of pictures. */

import { createImageReader } from "../chat/create.ts";
import { openEmbedder } from "../chat/embedder.ts";
import type { ImageTextPair } from "../data/dataset.ts";
import { readSpan } from "../data/file-span.ts";
import { readPicture } from "../images/picture.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import { Graph } from "../tensor/graph.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { type RankSummary, summarizeRanks } from "./ranks.ts";

export interface RetrievalReport {
  readonly pictures: number;
  readonly captions: number;
  /** Where the own picture stands among all, for each caption. */
  readonly picturesByCaption: RankSummary;
  /** Where the best of the own captions stands among all, for each picture. */
  readonly captionsByPicture: RankSummary;
}

export interface RetrievalOptions extends SessionOptions {
  /** Captions of each picture that are looked for; all by default. */
  readonly captionsPerPicture?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Embeds all pictures and captions, and ranks each against all. @throws Error if the model has no contrastive head */
export async function evaluateRetrieval(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  { captionsPerPicture, onProgress, signal, ...session }: RetrievalOptions = {},
): Promise<RetrievalReport> {
  const embedder = await openEmbedder(folder, session);
  if (!embedder) throw new Error(`${folder.path} has no contrastive head (weights.contrastive of its config.json)`);
  try {
    const graph = new Graph();
    const reader = await createImageReader(graph, folder.imageWeights(graph), folder.config, session);
    try {
      const pictures: Float32Array[] = [];
      const captions: OwnedCaption[] = [];
      for (const [own, { name, picture, texts }] of pairs.entries()) {
        signal?.throwIfAborted();
        pictures.push(
          await embedder.embedPicture(await reader.read(await readPicture(await readSpan(picture), { name }))),
        );
        const embeddings = await embedder.embedTexts(texts.slice(0, captionsPerPicture));
        captions.push(...embeddings.map((embedding) => ({ own, embedding })));
        onProgress?.(pictures.length, pairs.length);
      }
      return rankAll(pictures, captions);
    } finally {
      await reader.release();
    }
  } finally {
    await embedder.release();
  }
}

export interface OwnedCaption {
  /** The place of its picture. */
  readonly own: number;
  readonly embedding: Float32Array;
}

/** Ranks embeddings by their products. @throws Error if there are no captions */
export function rankAll(pictures: readonly Float32Array[], captions: readonly OwnedCaption[]): RetrievalReport {
  if (captions.length === 0) throw new Error("There is no caption to evaluate");
  const rows = pictures.map((picture) => captions.map(({ embedding }) => dot(picture, embedding)));
  const higher = (scores: readonly number[], score: number) => scores.filter((other) => other > score).length;
  const ofCaptions = captions.map(({ own }, caption) => {
    const column = rows.map((row) => row[caption] as number);
    return 1 + higher(column, column[own] as number);
  });
  const ofPictures = rows.flatMap((row, picture) => {
    const own = row.filter((_, caption) => captions[caption]?.own === picture);
    return own.length === 0 ? [] : [1 + higher(row, Math.max(...own))];
  });
  return {
    pictures: pictures.length,
    captions: captions.length,
    picturesByCaption: summarizeRanks(ofCaptions),
    captionsByPicture: summarizeRanks(ofPictures),
  };
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
