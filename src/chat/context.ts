/** What a language model has read, so that the next prompt is read only from where it differs. */
import type { KVCache } from "./kv-cache.ts";
import type { LanguageModel } from "./language-model.ts";
import type { Position } from "./reading-graph.ts";

export class Context {
  readonly cache: KVCache;
  private read: Position[] = [];

  constructor(model: LanguageModel) {
    this.cache = model.newCache();
  }

  /**
   * Keeps what the cache holds of the beginning of `sequence`, and returns the rest, which must be read now: at least
   * the last position, whose scores are wanted.
   */
  advance(sequence: readonly Position[]): Position[] {
    const known = Math.min(this.read.length, this.cache.length);
    let common = 0;
    while (common < known && common < sequence.length - 1 && this.read[common] === sequence[common]) common++;
    this.cache.truncate(common);
    this.read = [...sequence];
    return sequence.slice(common);
  }
}

/**
 * The end of a sequence that leaves room for `maxNewTokens` within `maxLength` positions: the oldest positions are
 * dropped from the front, as in the original demo.
 */
export function fitContext(
  sequence: readonly Position[],
  maxNewTokens: number,
  maxLength: number,
): readonly Position[] {
  return sequence.slice(Math.max(0, sequence.length + maxNewTokens - maxLength));
}
