import fc from "fast-check";
import { expect, test } from "vitest";
import { RateLimiter, rateLimitReset, retryAfter, retryDelay } from "../../../src/curation/polishing/rate-limit.ts";

const now = Date.parse("2026-03-01T12:00:00Z");
const headers = (all: Record<string, string>) => new Headers(all);

test.each([
  [{ "retry-after": "20" }, 20_000],
  [{ "retry-after": "0.5" }, 500],
  [{ "retry-after": "0" }, 0],
  [{ "retry-after": "Sun, 01 Mar 2026 12:01:00 GMT" }, 60_000],
  [{ "retry-after": "Sun, 01 Mar 2026 11:00:00 GMT" }, 0],
  [{ "retry-after-ms": "1500", "retry-after": "2" }, 1500],
  [{ "retry-after-ms": "x", "retry-after": "2" }, 2000],
  [{ "retry-after": "-5" }, undefined],
  [{ "retry-after": "later" }, undefined],
  [{}, undefined],
])("%j", (given, wait) => {
  expect(retryAfter(headers(given), now)).toBe(wait);
});

test.each([
  [{ "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s" }, 360_000],
  [{ "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms" }, 20],
  [{ "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s" }, 3_723_500],
  [{ "x-ratelimit-remaining": "0", "x-ratelimit-reset": `${now + 5000}` }, 5000],
  [{ "x-ratelimit-remaining": "0", "x-ratelimit-reset": `${now / 1000 + 5}` }, 5000],
  [{ "x-ratelimit-remaining": "0", "x-ratelimit-reset": "2026-03-01T12:00:05Z" }, 5000],
  [{ "x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6m0s" }, undefined],
  [{ "x-ratelimit-remaining-requests": "0" }, undefined],
  [
    {
      ...{ "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s" },
      ...{ "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3s" },
    },
    3000,
  ],
])("%j", (given, wait) => {
  expect(rateLimitReset(headers(given), now)).toBe(wait);
});

test("any header value gives a delay or undefined", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const value = text.replace(/[^\x20-\x7e]/g, "");
      for (const wait of [
        retryAfter(headers({ "retry-after": value, "retry-after-ms": value }), now),
        rateLimitReset(headers({ "x-ratelimit-remaining": "0", "x-ratelimit-reset": value }), now),
      ]) {
        expect(wait === undefined || wait >= 0).toBe(true);
      }
    }),
  );
});

test("delays double up to half a minute, with jitter", () => {
  for (const [failures, most] of [
    [1, 500],
    [2, 1000],
    [4, 4000],
    [50, 30_000],
  ] as const) {
    const delays = Array.from({ length: 20 }, () => retryDelay(failures, 500));
    expect(Math.max(...delays)).toBeLessThanOrEqual(most);
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(most / 2);
    expect(new Set(delays).size).toBeGreaterThan(1);
  }
});

test("waits until the end of a pause that is extended", async () => {
  const pace = new RateLimiter();
  const began = performance.now();
  pace.pause(50);
  setTimeout(() => pace.pause(150), 20);
  await pace.wait(AbortSignal.timeout(5000));
  expect(performance.now() - began).toBeGreaterThan(165);
  pace.pause(60_000);
  await expect(pace.wait(AbortSignal.timeout(10))).rejects.toThrow();
});
