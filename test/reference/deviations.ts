/** What a reference run reports: the largest deviation of each quantity, beside what is tolerated. */
import { afterAll, expect } from "vitest";

const rows: string[] = [];

/** Prints the table of this file's deviations when its tests are done. */
export function reportDeviations(): void {
  afterAll(() => {
    if (rows.length > 0) console.log(rows.join("\n"));
  });
}

/** Notes a deviation and fails if it is not below what is tolerated. */
export function expectDeviation(quantity: string, deviation: number, tolerance: number): void {
  rows.push(`${quantity.padEnd(52)} ${deviation.toExponential(2).padStart(10)}   (tolerated ${tolerance})`);
  expect(deviation, quantity).toBeLessThan(tolerance);
}

/** Notes that a result is equal, or fails showing both. */
export function expectEqual<T>(quantity: string, found: T, expected: T): void {
  expect(found, quantity).toEqual(expected);
  rows.push(`${quantity.padEnd(52)} ${"equal".padStart(10)}`);
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
