import { expect, test } from "vitest";
import { computeRankMetrics } from "../../src/evaluation/retrieval.ts";

test("the median of an even number of ranks is the mean of the middle two", () => {
  expect(computeRankMetrics([30, 1, 7]).medianRank).toBe(7);
  expect(computeRankMetrics([30, 1, 10, 2]).medianRank).toBe(6);
});

test("R@k includes rank k", () => {
  expect(computeRankMetrics([1, 5, 6, 10, 11])).toEqual({
    medianRank: 6,
    recallAt1: 0.2,
    recallAt5: 0.4,
    recallAt10: 0.8,
  });
});
