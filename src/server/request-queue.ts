/** Limits concurrent requests, with a bounded queue that is fair among clients. */
import { openAiError } from "./errors.ts";

export interface QueueOptions {
  /** Requests that run at the same time. @default 8 */
  readonly maxConcurrent: number;
  /** Requests that wait; more are rejected with status 429. @default 64 */
  readonly maxQueue: number;
}

/** Frees the slot. Later calls have no effect. */
export type ReleaseSlot = () => void;

interface Waiter {
  readonly admit: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Weight of the latest request in the moving average of durations. */
const smoothing = 0.2;
const maxRetrySeconds = 60;

export class RequestQueue {
  private readonly options: QueueOptions;
  /** Waiting requests by client, in round-robin order: a client that has been served moves to the end. */
  private readonly queues = new Map<string, Waiter[]>();
  private runningCount = 0;
  private waitingCount = 0;
  private meanSeconds = 1;

  constructor(options: QueueOptions) {
    this.options = options;
  }

  get running(): number {
    return this.runningCount;
  }

  get waiting(): number {
    return this.waitingCount;
  }

  /**
   * Waits for a slot. Clients are served round-robin. If the queue is full, the last request of the client with the most
   * waiting requests is rejected to make room for a client with fewer.
   *
   * @throws OpenAiError 429 if the queue is full; the signal's reason if it is aborted while waiting
   */
  async acquire(client: string, signal: AbortSignal): Promise<ReleaseSlot> {
    signal.throwIfAborted();
    if (this.runningCount >= this.options.maxConcurrent) {
      if (this.waitingCount >= this.options.maxQueue) this.makeRoom(client);
      await this.wait(client, signal);
    } else {
      this.runningCount++;
    }
    const start = performance.now();
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      this.meanSeconds += smoothing * ((performance.now() - start) / 1000 - this.meanSeconds);
      this.runningCount--;
      this.admitNext();
    };
  }

  private wait(client: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.remove(client, waiter);
        waiter.reject(signal.reason);
      };
      const waiter: Waiter = {
        admit: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
        reject: (reason) => {
          signal.removeEventListener("abort", onAbort);
          reject(reason);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.queues.set(client, [...(this.queues.get(client) ?? []), waiter]);
      this.waitingCount++;
    });
  }

  private admitNext(): void {
    const [next] = this.queues;
    if (!next) return;
    const [client, [waiter, ...rest]] = next;
    this.queues.delete(client);
    if (rest.length > 0) this.queues.set(client, rest);
    this.waitingCount--;
    this.runningCount++;
    waiter?.admit();
  }

  /** Rejects a request of the client with the most waiting. @throws OpenAiError 429 if none has at least two more than `client` */
  private makeRoom(client: string): void {
    const own = this.queues.get(client)?.length ?? 0;
    let longest: [string, Waiter[]] | undefined;
    for (const entry of this.queues) if (entry[1].length > (longest?.[1].length ?? own + 1)) longest = entry;
    const last = longest?.[1].at(-1);
    if (!longest || !last) throw this.queueFullError();
    this.remove(longest[0], last);
    last.reject(this.queueFullError());
  }

  private remove(client: string, waiter: Waiter): void {
    const queue = this.queues.get(client);
    if (!queue?.includes(waiter)) return;
    const rest = queue.filter((other) => other !== waiter);
    if (rest.length > 0) this.queues.set(client, rest);
    else this.queues.delete(client);
    this.waitingCount--;
  }

  private queueFullError() {
    const seconds = Math.ceil((this.meanSeconds * (this.waitingCount + 1)) / this.options.maxConcurrent);
    const message = `The server is busy and its queue is full (${this.waitingCount} requests are waiting). Retry later.`;
    return openAiError(
      429,
      { message, code: "rate_limit_exceeded" },
      { "retry-after": String(Math.min(Math.max(seconds, 1), maxRetrySeconds)) },
    );
  }
}
