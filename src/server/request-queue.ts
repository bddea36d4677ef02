/** Who may ask the engine now, who waits, and who is sent away: few at once, a short queue, fair among clients. */
import { openAiError } from "./errors.ts";

export interface QueueOptions {
  /** Questions that the engine is given at once. */
  readonly maxConcurrent: number;
  /** Questions that wait for their turn. */
  readonly maxQueue: number;
}

/** Gives the place back; only the first call counts. */
export type ReleaseSlot = () => void;

interface Waiter {
  readonly admit: () => void;
  readonly refuse: (reason: unknown) => void;
}

/** How much a new answer's duration counts in the running mean. */
const newest = 0.2;
const longestRetry = 60;

export class RequestQueue {
  private readonly options: QueueOptions;
  /** Waiting questions of each client. The order of the clients is the order of their turns: who was served goes to the end. */
  private readonly queues = new Map<string, Waiter[]>();
  private inside = 0;
  private queued = 0;
  private meanSeconds = 1;

  constructor(options: QueueOptions) {
    this.options = options;
  }

  get running(): number {
    return this.inside;
  }

  get waiting(): number {
    return this.queued;
  }

  /**
   * Waits for a place. Clients take turns, however many questions one of them has waiting. In a full queue the last
   * question of the client with most of them makes room for a client with fewer.
   *
   * @throws OpenAiError 429 if the queue is full; the signal's reason if it is aborted while waiting
   */
  async enter(client: string, signal: AbortSignal): Promise<ReleaseSlot> {
    signal.throwIfAborted();
    if (this.inside >= this.options.maxConcurrent) {
      if (this.queued >= this.options.maxQueue) this.makeRoom(client);
      await this.wait(client, signal);
    } else {
      this.inside++;
    }
    const began = performance.now();
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.meanSeconds += newest * ((performance.now() - began) / 1000 - this.meanSeconds);
      this.inside--;
      this.admitNext();
    };
  }

  private wait(client: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        this.remove(client, waiter);
        waiter.refuse(signal.reason);
      };
      const waiter: Waiter = {
        admit: () => {
          signal.removeEventListener("abort", giveUp);
          resolve();
        },
        refuse: (reason) => {
          signal.removeEventListener("abort", giveUp);
          reject(reason);
        },
      };
      signal.addEventListener("abort", giveUp, { once: true });
      this.queues.set(client, [...(this.queues.get(client) ?? []), waiter]);
      this.queued++;
    });
  }

  private admitNext(): void {
    const [next] = this.queues;
    if (!next) return;
    const [client, [waiter, ...rest]] = next;
    this.queues.delete(client);
    if (rest.length > 0) this.queues.set(client, rest);
    this.queued--;
    this.inside++;
    waiter?.admit();
  }

  /** @throws OpenAiError 429 if nobody has clearly more waiting than `client` */
  private makeRoom(client: string): void {
    const own = this.queues.get(client)?.length ?? 0;
    let longest: [string, Waiter[]] | undefined;
    for (const entry of this.queues) if (entry[1].length > (longest?.[1].length ?? own + 1)) longest = entry;
    const last = longest?.[1].at(-1);
    if (!longest || !last) throw this.full();
    this.remove(longest[0], last);
    last.refuse(this.full());
  }

  private remove(client: string, waiter: Waiter): void {
    const queue = this.queues.get(client);
    if (!queue?.includes(waiter)) return;
    const rest = queue.filter((other) => other !== waiter);
    if (rest.length > 0) this.queues.set(client, rest);
    else this.queues.delete(client);
    this.queued--;
  }

  private full() {
    const seconds = Math.ceil((this.meanSeconds * (this.queued + 1)) / this.options.maxConcurrent);
    return openAiError(
      429,
      {
        message: `All places are taken and ${this.queued} questions wait already; ask again later`,
        code: "rate_limit_exceeded",
      },
      { "retry-after": String(Math.min(Math.max(seconds, 1), longestRetry)) },
    );
  }
}
