/** What a language model has read lately, so that a text is read only from where it differs from an earlier one. */
import type { KVCache } from "../kv-cache.ts";
import type { LanguageModel } from "../language-model.ts";
import type { Position } from "../reading-feeds.ts";

interface Prefix {
  readonly positions: readonly Position[];
  /** Of one sequence, and as long as `positions`. */
  readonly cache: KVCache;
}

/** The one that was used last is always kept; others go, the longest unused first, where all take more than `maxBytes`. */
export class PrefixStore {
  private readonly model: Pick<LanguageModel, "newCache">;
  private readonly maxBytes: number;
  /** The one that was used last comes last. */
  private prefixes: Prefix[] = [];

  constructor(model: Pick<LanguageModel, "newCache">, maxBytes: number) {
    this.model = model;
    this.maxBytes = maxBytes;
  }

  /**
   * A cache of the longest known beginning of a sequence, its last position excepted, whose scores are wanted. It is the
   * caller's own; what it held is put back when it has grown.
   */
  take(sequence: readonly Position[]): KVCache {
    let [best, length]: [Prefix | undefined, number] = [undefined, 0];
    for (const prefix of this.prefixes) {
      const common = commonLength(prefix.positions, sequence, sequence.length - 1);
      if (common > length) [best, length] = [prefix, common];
    }
    if (!best) return this.model.newCache();
    // Another conversation may go on from where this one leaves the sequence.
    if (length < best.positions.length) return best.cache.select([0], length);
    this.prefixes = this.prefixes.filter((prefix) => prefix !== best);
    return best.cache;
  }

  /** Keeps what a cache of one sequence holds; the cache must not be changed any more. */
  put(positions: readonly Position[], cache: KVCache): void {
    const isPart = (prefix: Prefix) =>
      commonLength(prefix.positions, positions, positions.length) === prefix.positions.length;
    this.prefixes = [...this.prefixes.filter((prefix) => !isPart(prefix)), { positions, cache }];
    let bytes = this.prefixes.reduce((sum, prefix) => sum + prefix.cache.bytes, 0);
    while (bytes > this.maxBytes && this.prefixes.length > 1) bytes -= this.prefixes.shift()?.cache.bytes ?? 0;
  }
}

/** How many positions two sequences begin with alike, at most `limit`. */
function commonLength(a: readonly Position[], b: readonly Position[], limit: number): number {
  const most = Math.min(a.length, b.length, limit);
  let common = 0;
  while (common < most && a[common] === b[common]) common++;
  return common;
}
