/** Rate limits of a chat service, shared by all workers, and the token budget of a project. */
import { setTimeout as sleep } from "node:timers/promises";

/** Longest retry delay if the service requests none, in milliseconds. */
const longestDelay = 30_000;

/** Pauses all requests when the service asks for it. */
export class RateLimiter {
  private until = 0;

  /** Pauses all requests for some milliseconds. */
  pause(milliseconds: number): void {
    this.until = Math.max(this.until, performance.now() + milliseconds);
  }

  /** Waits until requests are allowed. @throws if the signal is aborted */
  async wait(signal: AbortSignal): Promise<void> {
    for (let left = this.left(); left > 0; left = this.left()) {
      // With jitter, so that workers do not all resume at the same moment.
      await sleep(left + Math.random() * Math.min(left / 10, 500), undefined, { signal });
    }
  }

  private left(): number {
    return Math.ceil(this.until - performance.now());
  }
}

/** Exponential backoff with jitter, in milliseconds. */
export function retryDelay(failures: number, first: number): number {
  return Math.min(first * 2 ** (failures - 1), longestDelay) * (0.5 + Math.random() / 2);
}

/** The delay that a response requests (`retry-after`), in milliseconds; undefined if it requests none. */
export function retryAfter(headers: Headers, now = Date.now()): number | undefined {
  const milliseconds = headers.get("retry-after-ms");
  const after = headers.get("retry-after");
  return (milliseconds ? clampDelay(Number(milliseconds)) : undefined) ?? (after ? parseDelay(after, now) : undefined);
}

/** Time until an exhausted rate limit resets (`x-ratelimit-*`), in milliseconds; undefined if none is exhausted. */
export function rateLimitReset(headers: Headers, now = Date.now()): number | undefined {
  const waits: number[] = [];
  for (const [name, value] of headers) {
    const [, limit] = /^x-ratelimit-remaining(.*)$/i.exec(name) ?? [];
    if (limit === undefined || value.trim() === "" || Number(value) > 0) continue;
    const reset = parseDelay(headers.get(`x-ratelimit-reset${limit}`) ?? "", now);
    if (reset !== undefined) waits.push(reset);
  }
  return waits.length > 0 ? Math.max(...waits) : undefined;
}

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Parses a delay: seconds ("20"), a duration ("6m0s", "20ms"), Unix time in seconds or milliseconds, or a date. */
function parseDelay(text: string, now: number): number | undefined {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) {
    const value = Number(trimmed);
    if (value > 1e11) return clampDelay(value - now);
    if (value > 1e9) return clampDelay(value * 1000 - now);
    return value * 1000;
  }
  if (/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(trimmed)) {
    const parts = trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g);
    return [...parts].reduce((sum, [, count, unit = ""]) => sum + Number(count) * (unitMs[unit] ?? 0), 0);
  }
  // Date.parse accepts more than dates, such as "-5".
  return /^[a-z]{3},|^\d{4}-\d\d-\d\d/i.test(trimmed) ? clampDelay(Date.parse(trimmed) - now) : undefined;
}

/** Times in the past are no delay. */
function clampDelay(milliseconds: number): number | undefined {
  return Number.isNaN(milliseconds) ? undefined : Math.max(0, milliseconds);
}

/** A token limit that concurrent requests do not exceed. */
export class TokenBudget {
  private readonly limit: number;
  private readonly spent: () => number;
  private reserved = 0;
  private open = 0;
  /** Largest ratio of counted to estimated prompt tokens so far. */
  private factor = 2;

  /** @param spent returns the number of tokens that answers have cost */
  constructor(limit: number, spent: () => number) {
    this.limit = limit;
    this.spent = spent;
  }

  /** Whether no request is in flight. */
  get settled(): boolean {
    return this.open === 0;
  }

  /**
   * Reserves the maximum number of tokens of a request and its answer.
   *
   * @returns a function that frees the reservation when the cost is known; undefined if the budget does not suffice
   */
  reserve(estimatedPrompt: number, maxAnswer: number): (() => void) | undefined {
    const most = Math.ceil(estimatedPrompt * this.factor) + maxAnswer;
    if (this.limit < Number.POSITIVE_INFINITY && this.spent() + this.reserved + most > this.limit) return undefined;
    this.reserved += most;
    this.open++;
    return () => {
      this.reserved -= most;
      this.open--;
    };
  }

  /** Records how the service counts tokens. */
  learn(estimatedPrompt: number, counted: number): void {
    this.factor = Math.max(this.factor, counted / estimatedPrompt);
  }
}
