/** Server-sent events at the pace of whoever reads them. */

export interface EventStreamOptions {
  /** How long the reader may leave an event untaken. */
  readonly writeTimeoutSeconds: number;
  /** Called when nobody reads any more, or not soon enough; the connection should be closed then. */
  readonly onAbandoned: (reason: Error) => void;
  /** How often a reader is told that there is nothing yet (default 15); proxies close connections on which nothing happens. */
  readonly heartbeatSeconds?: number;
}

/** A comment, which readers of events pass over. */
const heartbeat = ": still here\n\n";

/**
 * A body that asks for the next piece only when the last one was taken, so that a slow reader holds back the source
 * instead of filling the memory.
 *
 * @param pieces texts of events, complete with their empty lines; should not throw, as a stream cannot say why
 */
export function eventStream(
  pieces: AsyncIterable<string>,
  { writeTimeoutSeconds, onAbandoned, heartbeatSeconds = 15 }: EventStreamOptions,
): ReadableStream<Uint8Array> {
  const iterator = pieces[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout | undefined;
  let next: Promise<IteratorResult<string>> | undefined;
  const abandon = (reason: Error) => {
    clearTimeout(timer);
    onAbandoned(reason);
    // Pending work of the source ends in its own time.
    void iterator.return?.().catch(() => {});
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(timer);
        next ??= iterator.next();
        const result = await within(heartbeatSeconds * 1000, next);
        if (result) next = undefined;
        if (result?.done) return controller.close();
        controller.enqueue(encoder.encode(result?.value ?? heartbeat));
        const reason = new Error(`The client read nothing for ${writeTimeoutSeconds} seconds`);
        timer = setTimeout(() => abandon(reason), writeTimeoutSeconds * 1000);
      },
      cancel: () => abandon(new Error("The client went away")),
    },
    { highWaterMark: 0 },
  );
}

/** One event. */
export function eventText(data: unknown): string {
  return `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/** What is waited for, or undefined if it does not come in time. */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
