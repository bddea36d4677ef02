import { expect, test } from "vitest";
import { summarize } from "../../src/evaluation/likelihood.ts";

test("ranks, means and shares", () => {
  const report = summarize([
    { own: 0, losses: [1, 2, 3], withoutEnd: 0.5 },
    { own: 1, losses: [1, 4, 3], withoutEnd: 3.5 },
  ]);
  expect(report).toEqual({
    images: 3,
    captions: 2,
    right: 2.5,
    matchedLossWithoutEos: 2,
    wrong: (2 + 3 + 1 + 3) / 4,
    medianRank: 2,
    first: 0.5,
    recallAt5: 1,
    recallAt10: 1,
  });
  expect(() => summarize([])).toThrow(/no caption/);
});
