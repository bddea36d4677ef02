import { expect, test } from "vitest";
import { summarize } from "../../src/evaluation/likelihood.ts";

test("summarizes losses: means, median rank and recall", () => {
  const report = summarize([
    { own: 0, losses: [1, 2, 3], withoutEnd: 0.5 },
    { own: 1, losses: [1, 4, 3], withoutEnd: 3.5 },
  ]);
  expect(report).toEqual({
    images: 3,
    captions: 2,
    matchedLoss: 2.5,
    matchedLossWithoutEos: 2,
    mismatchedLoss: (2 + 3 + 1 + 3) / 4,
    medianRank: 2,
    recallAt1: 0.5,
    recallAt5: 1,
    recallAt10: 1,
  });
  expect(() => summarize([])).toThrow(/no captions/);
});
