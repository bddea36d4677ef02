/** From scores to the next token: repetition penalty, temperature, top-k, top-p, and a seeded draw. */
import type { Random } from "../tensor/random.ts";

export interface SamplingOptions {
  /** 0 takes the most likely token (greedy); 1 draws from the model's distribution. */
  readonly temperature?: number;
  /** Draw among this many most likely tokens; 0 means all. */
  readonly topK?: number;
  /** Draw among the most likely tokens that together have this probability (Holtzman et al., arXiv 1904.09751). */
  readonly topP?: number;
  /** Above 1, tokens that were said already become less likely (Keskar et al., arXiv 1909.05858). */
  readonly repetitionPenalty?: number;
}

/** Divides positive scores of the tokens in `said` by `penalty` and multiplies negative ones, in place. */
export function penalizeRepetition(scores: Float32Array, said: Iterable<number>, penalty: number): void {
  if (penalty === 1) return;
  for (const id of new Set(said)) {
    const score = scores[id] as number;
    scores[id] = score > 0 ? score / penalty : score * penalty;
  }
}

/** Index of the largest score; the first of equal ones. */
export function argmax(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if ((scores[i] as number) > (scores[best] as number)) best = i;
  return best;
}

/** log(softmax(scores)), as a new array. */
export function logSoftmax(scores: Float32Array): Float32Array {
  let max = Number.NEGATIVE_INFINITY;
  for (const score of scores) if (score > max) max = score;
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - max);
  const shift = max + Math.log(sum);
  return scores.map((score) => score - shift);
}

/** The tokens that may be drawn and their probabilities, most likely first. */
export function distribution(scores: Float32Array, options: SamplingOptions): { id: number; probability: number }[] {
  const { temperature = 1, topK = 0, topP = 1 } = options;
  const max = scores[argmax(scores)] as number;
  const weigh = (id: number) => Math.exp(((scores[id] as number) - max) / temperature);
  const candidates = topK > 0 ? mostLikely(scores, topK) : [...scores.keys()];
  const total = candidates.reduce((sum, id) => sum + weigh(id), 0);
  // All tokens below this together could not make up what topP leaves out; sorting them too would take longer than a small model.
  const negligible = Math.min(1, ((1 - topP) * total) / candidates.length);
  const order = candidates.filter((id) => weigh(id) >= negligible);
  if (topK === 0) order.sort((a, b) => (scores[b] as number) - (scores[a] as number));
  const kept: { id: number; probability: number }[] = [];
  let mass = 0;
  for (const id of order) {
    // The token that crosses topP still belongs to the set, so there is always one.
    if (kept.length > 0 && mass >= topP * total) break;
    mass += weigh(id);
    kept.push({ id, probability: weigh(id) });
  }
  return kept.map(({ id, probability }) => ({ id, probability: probability / mass }));
}

/** The next token. `scores` are changed in place by the penalty. */
export function chooseToken(
  scores: Float32Array,
  said: Iterable<number>,
  options: SamplingOptions,
  random: Random,
): number {
  penalizeRepetition(scores, said, options.repetitionPenalty ?? 1);
  if (!options.temperature) return argmax(scores);
  if (!options.topK && (options.topP ?? 1) >= 1) return drawAny(scores, options.temperature, random);
  let rest = random.uniform();
  const candidates = distribution(scores, options);
  for (const { id, probability } of candidates) {
    rest -= probability;
    if (rest < 0) return id;
  }
  return candidates[0]?.id ?? argmax(scores);
}

/** A token drawn among all of them, which need no order: sorting a vocabulary takes longer than a small model. */
function drawAny(scores: Float32Array, temperature: number, random: Random): number {
  const best = argmax(scores);
  const max = scores[best] as number;
  const weights = scores.map((score) => Math.exp((score - max) / temperature));
  let total = 0;
  for (const weight of weights) total += weight;
  let rest = random.uniform() * total;
  for (let id = 0; id < weights.length; id++) {
    rest -= weights[id] as number;
    if (rest < 0) return id;
  }
  return best;
}

/** Indices of the `count` largest scores, largest first. */
export function mostLikely(scores: Float32Array, count: number): number[] {
  if (count >= scores.length) return [...scores.keys()].sort((a, b) => (scores[b] as number) - (scores[a] as number));
  const best: number[] = [];
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id] as number;
    if (best.length === count && score <= (scores[best[count - 1] as number] as number)) continue;
    let at = best.length;
    while (at > 0 && score > (scores[best[at - 1] as number] as number)) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}
