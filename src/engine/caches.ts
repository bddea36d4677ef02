/** What an engine keeps from earlier requests, bounded by bytes: image tokens, and KV caches of prompts. */

import { LRUCache } from "lru-cache";
import type { ImageEncoder, ImageTokens } from "../generation/image-encoder.ts";
import type { KVCache } from "../generation/kv-cache.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import type { Pixels } from "../images/decode.ts";
import type { ImageInput } from "./engine.ts";

/** How images are identified and decoded, which differs between Node and a browser. */
export interface ImageSource {
  /** A key that is the same only for the same image. */
  key(image: ImageInput): Promise<string>;
  /** @throws RequestError if the image cannot be read */
  decode(image: ImageInput): Promise<Pixels>;
}

/** Image tokens of recent images, so that a follow-up question does not encode the image again. */
export class ImageCache implements AsyncDisposable {
  private readonly encoder: ImageEncoder;
  private readonly source: ImageSource;
  private readonly tokens: LRUCache<string, ImageTokens, { readonly image: ImageInput }>;

  /** @param maxBytes memory for image tokens; the least recently used ones are dropped */
  constructor(encoder: ImageEncoder, source: ImageSource, maxBytes = 2 ** 28) {
    this.encoder = encoder;
    this.source = source;
    this.tokens = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (tokens) => Math.max(1, countBytes(tokens)),
      // Requests for the same image while it is being encoded share the result.
      fetchMethod: async (_key, _stale, { context: { image } }) => this.encoder.encode(await this.source.decode(image)),
      ignoreFetchAbort: true,
    });
  }

  /** The same arrays for the same image; the prefix cache compares images by identity. */
  async encode(image: ImageInput): Promise<ImageTokens> {
    return this.tokens.forceFetch(await this.source.key(image), { context: { image } });
  }

  close(): Promise<void> {
    return this.encoder.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function countBytes(tokens: ImageTokens): number {
  return tokens.reduce((sum, token) => sum + token.byteLength, 0);
}

interface Prefix {
  readonly positions: readonly Position[];
  /** Of one sequence, as long as `positions`. */
  readonly cache: KVCache;
}

/** KV caches of recent sequences, so that a prompt is computed only from where it differs from an earlier one. */
export class PrefixCache {
  private readonly model: Pick<LanguageModel, "newCache">;
  private readonly maxBytes: number;
  /** Least recently used first. */
  private prefixes: Prefix[] = [];

  /** @param maxBytes the least recently used caches are dropped when all together take more; the latest one is always kept */
  constructor(model: Pick<LanguageModel, "newCache">, maxBytes: number) {
    this.model = model;
    this.maxBytes = maxBytes;
  }

  /**
   * A cache of the longest known prefix of a sequence, without its last position, whose logits are needed. The caller owns it
   * and puts it back after extending it.
   */
  take(sequence: readonly Position[]): KVCache {
    let [best, length]: [Prefix | undefined, number] = [undefined, 0];
    for (const prefix of this.prefixes) {
      const common = countCommon(prefix.positions, sequence, sequence.length - 1);
      if (common > length) [best, length] = [prefix, common];
    }
    if (!best) return this.model.newCache();
    // Copied, because another conversation may continue the rest.
    if (length < best.positions.length) return best.cache.select([0], length);
    this.prefixes = this.prefixes.filter((prefix) => prefix !== best);
    return best.cache;
  }

  /** Keeps the cache of one sequence, which must not be changed any more. */
  put(positions: readonly Position[], cache: KVCache): void {
    const isPart = (prefix: Prefix) =>
      countCommon(prefix.positions, positions, positions.length) === prefix.positions.length;
    this.prefixes = [...this.prefixes.filter((prefix) => !isPart(prefix)), { positions, cache }];
    let bytes = this.prefixes.reduce((sum, prefix) => sum + prefix.cache.bytes, 0);
    while (bytes > this.maxBytes && this.prefixes.length > 1) bytes -= this.prefixes.shift()?.cache.bytes ?? 0;
  }
}

/** Length of the common prefix of two sequences, at most `limit`. */
function countCommon(a: readonly Position[], b: readonly Position[], limit: number): number {
  const most = Math.min(a.length, b.length, limit);
  let common = 0;
  while (common < most && a[common] === b[common]) common++;
  return common;
}
