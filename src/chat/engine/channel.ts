/** Values that are pushed on one side and awaited on the other. */
export class Channel<T> implements AsyncIterable<T> {
  private readonly values: T[] = [];
  private ending: { readonly error?: unknown } | undefined;
  private wake: (() => void) | undefined;

  push(value: T): void {
    if (this.ending) return;
    this.values.push(value);
    this.wake?.();
  }

  /** No more values come. What was pushed before is still read, and then, if there is one, the error is thrown. */
  end(error?: unknown): void {
    this.ending ??= error === undefined ? {} : { error };
    this.wake?.();
  }

  /** For one reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    for (;;) {
      while (this.values.length > 0) yield this.values.shift() as T;
      if (this.ending) {
        if ("error" in this.ending) throw this.ending.error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = undefined;
    }
  }
}
