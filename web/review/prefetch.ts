/** Fetches pairs and their images ahead, so that reviewers do not wait. */
import { type Pair, ReviewError } from "./api.ts";

const prefetchCount = 2;

export class Prefetcher {
  /** Called with each fetched pair. */
  onFetched: (pair: Pair) => void = () => {};
  #pairs: readonly Pair[] = [];
  #fetching = false;

  get ids(): number[] {
    return this.#pairs.map(({ id }) => id);
  }

  take(): Pair | undefined {
    const [first, ...rest] = this.#pairs;
    this.#pairs = rest;
    return first;
  }

  /** Puts a pair first. */
  unshift(pair: Pair): void {
    this.#pairs = [pair, ...this.#pairs.filter(({ id }) => id !== pair.id)];
  }

  remove(pair: Pair): void {
    this.#pairs = this.#pairs.filter(({ id }) => id !== pair.id);
  }

  clear(): void {
    this.#pairs = [];
  }

  /**
   * Fetches pairs until there are enough.
   * @param current returns the id of the pair on screen
   * @param next fetches the pair after another
   */
  async fill(current: () => number | undefined, next: (after: number | undefined) => Promise<Pair | undefined>) {
    if (this.#fetching) return;
    this.#fetching = true;
    try {
      while (this.#pairs.length < prefetchCount) {
        const before = this.#pairs;
        const pair = await next(this.ids.at(-1) ?? current());
        // The list has changed during the request: try again.
        if (before !== this.#pairs) continue;
        if (!pair || pair.id === current()) break;
        this.#pairs = [...before, pair];
        this.onFetched(pair);
      }
    } catch (error) {
      // The next navigation tries again.
      if (!(error instanceof ReviewError)) throw error;
    } finally {
      this.#fetching = false;
    }
  }
}

const maxImages = 12;

/** Object URLs of images. They are fetched with the API key in a header, which an img element cannot send. */
export class ImageCache {
  readonly #load: (id: number) => Promise<Blob>;
  /** Least recently used first. */
  readonly #urls = new Map<number, Promise<string>>();

  constructor(load: (id: number) => Promise<Blob>) {
    this.#load = load;
  }

  /** Fetches an image, unless it is cached. @returns an object URL */
  url(id: number): Promise<string> {
    const url = this.#urls.get(id) ?? this.#load(id).then((blob) => URL.createObjectURL(blob));
    this.#urls.delete(id);
    this.#urls.set(id, url);
    url.catch(() => this.#urls.delete(id));
    const [oldest] = this.#urls.keys();
    if (this.#urls.size > maxImages && oldest !== undefined) {
      this.#urls.get(oldest)?.then(URL.revokeObjectURL, () => {});
      this.#urls.delete(oldest);
    }
    return url;
  }
}
