/**
 * Beam search: follows the `numBeams` most likely sequences at a time and keeps the best finished one.
 * Same results as `generate(num_beams=...)` of Hugging Face transformers with `early_stopping=False`.
 */
import { type Decoder, type DecodingContext, decode, type NextToken } from "./generate.ts";
import type { Position } from "./language-model.ts";
import { logSoftmax, penalizeRepetition, topKIndices } from "./sampling.ts";

export interface BeamOptions {
  readonly numBeams: number;
  readonly maxNewTokens: number;
  /** Sequences are ranked by the sum of their log-probabilities divided by length^lengthPenalty: above 0 favours long ones. @default 1 */
  readonly lengthPenalty?: number;
  /** @default 1 */
  readonly repetitionPenalty?: number;
  readonly eosId: number;
  /** Number of token ids, where the model has logits for more; the others are never generated. */
  readonly vocabSize?: number;
  /** Whether a sequence ends after these tokens, in addition to the end-of-sequence token. */
  readonly isStop?: (ids: readonly number[]) => boolean;
}

interface Beam {
  readonly ids: readonly number[];
  /** Sum of log-probabilities. */
  readonly score: number;
}

/** Token ids of the best sequence, without the end-of-sequence token. */
export async function beamSearch(
  prompt: readonly Position[],
  options: BeamOptions,
  context: DecodingContext,
): Promise<readonly number[]> {
  const decoder = new BeamSearchDecoder(options);
  for await (const _ of decode(decoder, prompt, context));
  return decoder.best;
}

export class BeamSearchDecoder implements Decoder {
  private readonly options: BeamOptions;
  private beams: readonly Beam[] = [{ ids: [], score: 0 }];
  /** The best `numBeams` that have ended, best first; scores are normalised by length. */
  private readonly finished: Beam[] = [];
  private length = 0;

  constructor(options: BeamOptions) {
    this.options = options;
  }

  /** Token ids of the best finished sequence. */
  get best(): readonly number[] {
    return this.finished[0]?.ids ?? [];
  }

  next(logits: Float32Array): readonly NextToken[] {
    const { numBeams, maxNewTokens, eosId, isStop } = this.options;
    this.length++;
    const candidates = this.rankContinuations(logits, 2 * numBeams);
    const kept: { parent: number; beam: Beam; id: number }[] = [];
    for (const [rank, { parent, id, score }] of candidates.entries()) {
      const ids = (this.beams[parent] as Beam).ids;
      if (id === eosId) {
        // A sequence that ends at a lower rank would only push out better beams.
        if (rank < numBeams) this.finish(ids, score);
      } else if (isStop?.([...ids, id])) {
        if (rank < numBeams) this.finish([...ids, id], score);
      } else if (kept.length < numBeams) {
        kept.push({ parent, id, beam: { ids: [...ids, id], score } });
      }
    }
    this.beams = kept.map(({ beam }) => beam);
    const bestScore = candidates[0]?.score ?? Number.NEGATIVE_INFINITY;
    const worst = this.finished[numBeams - 1]?.score;
    if (kept.length === 0 || (worst !== undefined && worst >= this.normalize(bestScore))) return [];
    if (this.length >= maxNewTokens) {
      for (const { ids, score } of this.beams) this.finish(ids, score);
      return [];
    }
    return kept.map(({ parent, id }) => ({ parent, id }));
  }

  private normalize(score: number): number {
    return score / this.length ** (this.options.lengthPenalty ?? 1);
  }

  private finish(ids: readonly number[], score: number): void {
    this.finished.push({ ids, score: this.normalize(score) });
    this.finished.sort((a, b) => b.score - a.score).splice(this.options.numBeams);
  }

  /** The best continuations over all beams, best first. */
  private rankContinuations(logits: Float32Array, count: number) {
    const { repetitionPenalty = 1, vocabSize = Number.POSITIVE_INFINITY } = this.options;
    const rowLength = logits.length / this.beams.length;
    const tokens = Math.min(rowLength, vocabSize);
    const all = this.beams.flatMap((beam, parent) => {
      const logProbabilities = logSoftmax(logits.subarray(parent * rowLength, parent * rowLength + tokens));
      penalizeRepetition(logProbabilities, beam.ids, repetitionPenalty);
      return topKIndices(logProbabilities, count).map((id) => ({
        parent,
        id,
        score: beam.score + (logProbabilities[id] as number),
      }));
    });
    return all.sort((a, b) => b.score - a.score).slice(0, count);
  }
}
