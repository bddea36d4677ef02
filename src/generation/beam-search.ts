/**
 * Beam search: follows the `numBeams` likeliest continuations at once and keeps the best finished one.
 * Same results as `generate(num_beams=...)` of Hugging Face transformers with `early_stopping=False`.
 */
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel, Position } from "./language-model.ts";
import { logSoftmax, mostLikely, penalizeRepetition } from "./sampling.ts";

export interface BeamOptions {
  readonly numBeams: number;
  readonly maxNewTokens: number;
  /** Scores are sums of log-probabilities divided by length^lengthPenalty: above 0 favours long answers. */
  readonly lengthPenalty?: number;
  readonly repetitionPenalty?: number;
  readonly eosId: number;
  /** How many tokens there are, if the model has scores for more: these are never said. */
  readonly knownTokens?: number;
  /** Whether an answer ends after these tokens, beside the end-of-sequence token. */
  readonly isStop?: (ids: readonly number[]) => boolean;
  readonly signal?: AbortSignal;
}

interface Beam {
  readonly ids: readonly number[];
  /** Sum of log-probabilities. */
  readonly score: number;
}

/** The best answer's token ids, without the end-of-sequence token. `cache` may already hold the start of the prompt. */
export async function beamSearch(...search: Parameters<typeof beamSteps>): Promise<number[]> {
  const steps = beamSteps(...search);
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
  }
}

/** As `beamSearch`, one step of the language model at a time, so that others can have it in between. */
export async function* beamSteps(
  model: Pick<LanguageModel, "forward">,
  prompt: readonly Position[],
  cache: KVCache,
  options: BeamOptions,
): AsyncGenerator<void, number[]> {
  const {
    numBeams,
    maxNewTokens,
    lengthPenalty = 1,
    repetitionPenalty = 1,
    eosId,
    knownTokens,
    isStop,
    signal,
  } = options;
  const finished: Beam[] = [];
  const normalized = (score: number, length: number) => score / length ** lengthPenalty;
  const finish = (ids: readonly number[], score: number, length: number) => {
    finished.push({ ids, score: normalized(score, length) });
    finished.sort((a, b) => b.score - a.score).splice(numBeams);
  };

  let beams: Beam[] = [{ ids: [], score: 0 }];
  let scores = await model.forward([prompt], cache);
  let caches = cache;
  for (let length = 1; length <= maxNewTokens; length++) {
    signal?.throwIfAborted();
    const candidates = continuations(beams, scores.data, 2 * numBeams, repetitionPenalty, knownTokens);
    const next: { from: number; beam: Beam; id: number }[] = [];
    for (const [rank, { from, id, score }] of candidates.entries()) {
      const ids = (beams[from] as Beam).ids;
      if (id === eosId) {
        // An end that is not among the best would only push out better beams.
        if (rank < numBeams) finish(ids, score, length);
      } else if (isStop?.([...ids, id])) {
        if (rank < numBeams) finish([...ids, id], score, length);
      } else if (next.length < numBeams) {
        next.push({ from, id, beam: { ids: [...ids, id], score } });
      }
    }
    const best = candidates[0]?.score ?? Number.NEGATIVE_INFINITY;
    beams = next.map(({ beam }) => beam);
    const worst = finished[numBeams - 1]?.score;
    if (beams.length === 0 || (worst !== undefined && worst >= normalized(best, length))) break;
    if (length === maxNewTokens) {
      for (const { ids, score } of beams) finish(ids, score, length);
      break;
    }
    yield;
    caches = caches.select(next.map(({ from }) => from));
    scores = await model.forward(
      next.map(({ id }) => [id]),
      caches,
    );
  }
  return [...(finished[0]?.ids ?? [])];
}

/** The best ways to go on, over all beams, best first. */
function continuations(
  beams: readonly Beam[],
  scores: Float32Array,
  count: number,
  repetitionPenalty: number,
  knownTokens = Number.POSITIVE_INFINITY,
) {
  const vocabSize = scores.length / beams.length;
  const known = Math.min(vocabSize, knownTokens);
  const all = beams.flatMap((beam, from) => {
    const logProbabilities = logSoftmax(scores.subarray(from * vocabSize, from * vocabSize + known));
    penalizeRepetition(logProbabilities, beam.ids, repetitionPenalty);
    return mostLikely(logProbabilities, count).map((id) => ({
      from,
      id,
      score: beam.score + (logProbabilities[id] as number),
    }));
  });
  return all.sort((a, b) => b.score - a.score).slice(0, count);
}
