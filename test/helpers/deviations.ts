/** What a reference run reports: the largest deviation of each quantity, beside what is tolerated. */
import { appendFileSync } from "node:fs";
import { expect } from "vitest";

/** Where `npm run test:reference` collects the rows of its table; nothing is noted in an ordinary test run. */
const table = process.env.MINIGPT4_DEVIATIONS;

function note(quantity: string, found: string, tolerated = ""): void {
  if (table)
    appendFileSync(table, `${quantity.padEnd(92)} ${found.padStart(10)}   ${tolerated}`.trimEnd().concat("\n"));
}

/** Notes a deviation and fails if it is not below what is tolerated. */
export function expectDeviation(quantity: string, deviation: number, tolerance: number): void {
  note(quantity, deviation.toExponential(2), `(tolerated ${tolerance})`);
  expect(deviation, quantity).toBeLessThan(tolerance);
}

/** Notes that a result is equal, or fails showing both. */
export function expectEqual<T>(quantity: string, found: T, expected: T): void {
  try {
    expect(found, quantity).toEqual(expected);
  } catch (error) {
    note(quantity, "DIFFERENT");
    throw error;
  }
  note(quantity, "equal");
}

/** Notes what could not be compared, and why. */
export function noteSkipped(quantity: string, why: string): void {
  note(quantity, "skipped", `(${why})`);
}

/** Largest absolute difference. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

/** Largest absolute difference as a share of the largest expected entry: how gradients are compared. */
export function relativeDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  return largestDifference(found, expected) / largestDifference(expected, new Float32Array(expected.length));
}
