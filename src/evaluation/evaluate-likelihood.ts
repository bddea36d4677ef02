/** The likelihood benchmark over a folder of pictures with captions. */
import { openImageReader } from "../chat/create.ts";
import { positionsOf } from "../chat/positions.ts";
import type { Position } from "../chat/reading-feeds.ts";
import type { Precision } from "../chat/reading-graph.ts";
import type { ImageTextPair } from "../data/dataset.ts";
import { readSpan } from "../data/file-span.ts";
import { readPicture } from "../images/picture.ts";
import type { ModelFolder } from "../models/model-folder.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { cleanCaption } from "../text/captions.ts";
import { parsePrompt } from "../text/prompts.ts";
import { type CaptionLosses, type LikelihoodReport, LikelihoodScorer, mean, summarize } from "./likelihood.ts";

export interface LikelihoodOptions extends SessionOptions {
  /** Of the language model's matrices; by default as the model folder says. */
  readonly precision?: Precision;
  /** Captions of each picture that are scored; all by default. */
  readonly captionsPerPicture?: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Scores every caption after every picture, in the form in which the model describes pictures. Captions are cleaned as in
 * the first training stage, and the end symbol counts as a token, as in training; pictures are ranked by the mean loss.
 */
export async function evaluateLikelihood(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  { captionsPerPicture = Number.POSITIVE_INFINITY, precision, onProgress, signal, ...session }: LikelihoodOptions = {},
): Promise<LikelihoodReport> {
  const { tokenizer } = folder.llm;
  const end = tokenizer.encode(folder.describe.stop[0] ?? "");
  const prompts = await readPrompts(folder, pairs, session);
  const last = prompts[0]?.at(-1);
  if (last === undefined) throw new Error("There are no pictures to evaluate");
  const scorer = await LikelihoodScorer.create(
    folder.llm,
    prompts.map((prompt) => prompt.slice(0, -1)),
    { ...session, precision: precision ?? folder.precision },
  );
  try {
    const captions = pairs.flatMap(({ texts }, own) =>
      texts
        .slice(0, captionsPerPicture)
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
    await scorer.release();
  }
}

/** For each picture all that stands before its caption; these end in the same words, so their last positions agree. */
async function readPrompts(
  folder: ModelFolder,
  pairs: readonly ImageTextPair[],
  session: SessionOptions,
): Promise<Position[][]> {
  const reader = await openImageReader(folder, session);
  try {
    const { prompt, beginsWith } = folder.describe;
    const parsed = parsePrompt(prompt + beginsWith);
    const prompts: Position[][] = [];
    for (const { name, picture } of pairs) {
      const image = await reader.read(await readPicture(await readSpan(picture), { name }));
      prompts.push(positionsOf(parsed, [image], folder.llm.tokenizer));
    }
    return prompts;
  } finally {
    await reader.release();
  }
}
