/** Image tokens of the images that were seen lately, so that the next question about one does not look at it again. */

import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { LRUCache } from "lru-cache";
import { sha256Hex } from "../files/digest.ts";
import type { ImageEncoder, ImageTokens } from "../generation/image-encoder.ts";
import type { KVCache } from "../generation/kv-cache.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import { ImageError, type ImageLimits, type Pixels, readImage } from "../images/decode.ts";
import { type ImageInput, RequestError } from "./engine.ts";

/** How images are read, which differs between Node and a browser. */
export interface ImageSource {
  /** The same for the same image, and for no other. */
  key(image: ImageInput): Promise<string>;
  /** @throws QuestionError if it is no image that can be read */
  decode(image: ImageInput): Promise<Pixels>;
}

/** Bytes of image tokens that are kept by default: some 500 images of a 7B model with 32 tokens each. */
const defaultMaxBytes = 2 ** 28;

export class ImageCache {
  private readonly encoder: ImageEncoder;
  private readonly source: ImageSource;
  private readonly tokens: LRUCache<string, ImageTokens, { readonly image: ImageInput }>;

  /** @param maxBytes image tokens beyond it are dropped, least recently used first */
  constructor(encoder: ImageEncoder, source: ImageSource, maxBytes = defaultMaxBytes) {
    this.encoder = encoder;
    this.source = source;
    this.tokens = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (tokens) => tokens.reduce((sum, { byteLength }) => sum + byteLength, 1),
      // Concurrent calls for one image share one computation; a failed one is not kept.
      fetchMethod: async (_key, _stale, { context }) => this.encoder.encode(await this.source.decode(context.image)),
      ignoreFetchAbort: true,
    });
  }

  /** Returns the same arrays for the same image: a language model's prefix cache compares them by identity. */
  async encode(image: ImageInput): Promise<ImageTokens> {
    return this.tokens.forceFetch(await this.source.key(image), { context: { image } });
  }

  close(): Promise<void> {
    return this.encoder.close();
  }
}

// What a language model has read lately, so that a text is read only from where it differs from an earlier one.

interface Prefix {
  readonly positions: readonly Position[];
  /** Of one sequence, and as long as `positions`. */
  readonly cache: KVCache;
}

/** The one that was used last is always kept; others go, the longest unused first, where all take more than `maxBytes`. */
export class PrefixCache {
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

// Images from files and from memory, as Node reads them.

export function imageFiles(limits: ImageLimits = {}): ImageSource {
  return {
    /** A file counts as the same while its size and the time of its last change are the same. */
    async key(image) {
      if (typeof image !== "string") return sha256Hex(image);
      const info = await stat(image).catch(() => undefined);
      return JSON.stringify([resolve(image), info?.size, info?.mtimeMs]);
    },
    async decode(image) {
      try {
        return await readImage(image, limits);
      } catch (cause) {
        if (cause instanceof ImageError) throw new RequestError("image", cause.message, { cause });
        throw cause;
      }
    },
  };
}
