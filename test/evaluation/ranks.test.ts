import { expect, test } from "vitest";
import { summarizeRanks } from "../../src/evaluation/retrieval.ts";

test("an odd number of ranks has one in the middle, an even number the mean of two", () => {
  expect(summarizeRanks([30, 1, 7]).medianRank).toBe(7);
  expect(summarizeRanks([30, 1, 10, 2]).medianRank).toBe(6);
});

test("the first 1, 5 and 10 places count the last of them too", () => {
  expect(summarizeRanks([1, 5, 6, 10, 11])).toEqual({ medianRank: 6, first: 0.2, firstFive: 0.4, firstTen: 0.8 });
});
