import { expect, test } from "vitest";
import { computeRankMetrics } from "../../src/evaluation/retrieval.ts";

test("an odd number of ranks has one in the middle, an even number the mean of two", () => {
  expect(computeRankMetrics([30, 1, 7]).medianRank).toBe(7);
  expect(computeRankMetrics([30, 1, 10, 2]).medianRank).toBe(6);
});

test("the first 1, 5 and 10 places count the last of them too", () => {
  expect(computeRankMetrics([1, 5, 6, 10, 11])).toEqual({ medianRank: 6, first: 0.2, recallAt5: 0.4, recallAt10: 0.8 });
});
