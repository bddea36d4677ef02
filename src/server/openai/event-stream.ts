/** Server-sent events with backpressure. */

export interface EventStreamOptions {
  /** How long the client may leave an event unread. */
  readonly writeTimeoutSeconds: number;
  /** Called when the client has disconnected or reads too slowly; should close the connection. */
  readonly onAbandoned: (reason: Error) => void;
  /** Interval of comments while there is no event, since proxies close idle connections. @default 15 */
  readonly heartbeatSeconds?: number;
}

/** A comment, which clients ignore. */
const heartbeat = ": still here\n\n";

/**
 * A response body that pulls the next event only when the last one has been read, so that a slow client slows down the
 * generation instead of filling the memory.
 *
 * @param events encoded events, see `eventText`; should not throw, because a stream cannot report why
 */
export function eventStream(
  events: AsyncIterable<string>,
  { writeTimeoutSeconds, onAbandoned, heartbeatSeconds = 15 }: EventStreamOptions,
): ReadableStream<Uint8Array> {
  const iterator = events[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout | undefined;
  let next: Promise<IteratorResult<string>> | undefined;
  const abandon = (reason: Error) => {
    clearTimeout(timer);
    onAbandoned(reason);
    // Not awaited: the source finishes its pending work on its own.
    void iterator.return?.().catch(() => {});
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(timer);
        next ??= iterator.next();
        const result = await withTimeout(heartbeatSeconds * 1000, next);
        if (result) next = undefined;
        if (result?.done) return controller.close();
        controller.enqueue(encoder.encode(result?.value ?? heartbeat));
        const reason = new Error(`The client has not read the stream for ${writeTimeoutSeconds} seconds.`);
        timer = setTimeout(() => abandon(reason), writeTimeoutSeconds * 1000);
      },
      cancel: () => abandon(new Error("The client has disconnected.")),
    },
    { highWaterMark: 0 },
  );
}

/** Encodes one event. @param data a string as it is, or a value as JSON */
export function eventText(data: unknown): string {
  return `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/** The promise's value, or undefined on a timeout. */
async function withTimeout<T>(milliseconds: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}
