/** The next token from logits: repetition penalty, temperature, top-k, top-p, and a seeded draw. */
import type { Random } from "../tensor/random.ts";

export interface SamplingOptions {
  /** 0 takes the most likely token (greedy); 1 samples from the model's distribution. @default 0 */
  readonly temperature?: number;
  /** Sample from this many most likely tokens; 0 means all. @default 0 */
  readonly topK?: number;
  /** Sample from the most likely tokens that together have this probability (Holtzman et al., arXiv 1904.09751). @default 1 */
  readonly topP?: number;
  /** Above 1, tokens that were generated before become less likely (Keskar et al., arXiv 1909.05858). @default 1 */
  readonly repetitionPenalty?: number;
}

/** State of a generation that samples tokens. */
export interface SamplingState {
  readonly random: Random;
  /** Token ids generated before, for the repetition penalty. */
  readonly previous?: Iterable<number>;
}

/** Divides positive logits of the `previous` tokens by `penalty` and multiplies negative ones, in place. */
export function penalizeRepetition(logits: Float32Array, previous: Iterable<number>, penalty: number): void {
  if (penalty === 1) return;
  for (const id of new Set(previous)) {
    const logit = logits[id] as number;
    logits[id] = logit > 0 ? logit / penalty : logit * penalty;
  }
}

/** Index of the largest logit; the first of several equal ones. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if ((logits[i] as number) > (logits[best] as number)) best = i;
  return best;
}

/** log(softmax(logits)), as a new array. */
export function logSoftmax(logits: Float32Array): Float32Array {
  let max = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const shift = max + Math.log(sum);
  return logits.map((logit) => logit - shift);
}

/** The tokens to sample from and their probabilities, most likely first. */
export function distribution(logits: Float32Array, options: SamplingOptions): { id: number; probability: number }[] {
  const { temperature = 1, topK = 0, topP = 1 } = options;
  const max = logits[argmax(logits)] as number;
  const weigh = (id: number) => Math.exp(((logits[id] as number) - max) / temperature);
  const candidates = topK > 0 ? topKIndices(logits, topK) : [...logits.keys()];
  const total = candidates.reduce((sum, id) => sum + weigh(id), 0);
  // All tokens below this together have less probability than topP excludes. Sorting them too would take longer than running a small model.
  const negligible = Math.min(1, ((1 - topP) * total) / candidates.length);
  const order = candidates.filter((id) => weigh(id) >= negligible);
  if (topK === 0) order.sort((a, b) => (logits[b] as number) - (logits[a] as number));
  const kept: { id: number; probability: number }[] = [];
  let mass = 0;
  for (const id of order) {
    // The token that crosses topP is included, so the set is never empty.
    if (kept.length > 0 && mass >= topP * total) break;
    mass += weigh(id);
    kept.push({ id, probability: weigh(id) });
  }
  return kept.map(({ id, probability }) => ({ id, probability: probability / mass }));
}

/** Samples the next token id. The penalty changes `logits` in place. */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  { random, previous = [] }: SamplingState,
): number {
  penalizeRepetition(logits, previous, options.repetitionPenalty ?? 1);
  if (!options.temperature) return argmax(logits);
  if (!options.topK && (options.topP ?? 1) >= 1) return sampleUnsorted(logits, options.temperature, random);
  let rest = random.uniform();
  const candidates = distribution(logits, options);
  for (const { id, probability } of candidates) {
    rest -= probability;
    if (rest < 0) return id;
  }
  return candidates[0]?.id ?? argmax(logits);
}

/** Samples from all tokens without sorting them, because sorting a vocabulary takes longer than running a small model. */
function sampleUnsorted(logits: Float32Array, temperature: number, random: Random): number {
  const best = argmax(logits);
  const max = logits[best] as number;
  const weights = logits.map((logit) => Math.exp((logit - max) / temperature));
  let total = 0;
  for (const weight of weights) total += weight;
  let rest = random.uniform() * total;
  for (let id = 0; id < weights.length; id++) {
    rest -= weights[id] as number;
    if (rest < 0) return id;
  }
  return best;
}

/** Indices of the `count` largest logits, largest first. */
export function topKIndices(logits: Float32Array, count: number): number[] {
  if (count >= logits.length) return [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number));
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number;
    if (best.length === count && logit <= (logits[best[count - 1] as number] as number)) continue;
    let at = best.length;
    while (at > 0 && logit > (logits[best[at - 1] as number] as number)) at--;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}
