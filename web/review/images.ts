/** Images of pairs, fetched before they are needed: with the key in a header, which an <img> could not send. */

/** How many are kept. */
const most = 12;

export class Images {
  readonly #load: (id: number) => Promise<Blob>;
  /** The one that was asked for last is the last. */
  readonly #urls = new Map<number, Promise<string>>();

  constructor(load: (id: number) => Promise<Blob>) {
    this.#load = load;
  }

  /** An address at which the image can be shown. */
  url(id: number): Promise<string> {
    const url = this.#urls.get(id) ?? this.#load(id).then((blob) => URL.createObjectURL(blob));
    this.#urls.delete(id);
    this.#urls.set(id, url);
    url.catch(() => this.#urls.delete(id));
    const [oldest] = this.#urls.keys();
    if (this.#urls.size > most && oldest !== undefined) {
      this.#urls.get(oldest)?.then(URL.revokeObjectURL, () => {});
      this.#urls.delete(oldest);
    }
    return url;
  }
}
