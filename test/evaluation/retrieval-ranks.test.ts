import { expect, test } from "vitest";
import { candidates, chance, rankTable, type ScoreTable } from "../../src/evaluation/retrieval.ts";

/** Two images; the first has two captions, the second one. */
const table: ScoreTable = {
  images: 2,
  owners: [0, 0, 1],
  scores: Float32Array.of(0.9, 0.2, 0.6, 0.1, 0.8, 0.4),
};

test("each caption looks for its image, each image for the best of its captions", () => {
  // Of the captions the first finds its image. The second image sees 0.1, 0.8 and its own 0.4.
  expect(rankTable(table)).toEqual({
    textToImage: { medianRank: 2, first: 1 / 3, recallAt5: 1, recallAt10: 1 },
    imageToText: { medianRank: 1.5, first: 0.5, recallAt5: 1, recallAt10: 1 },
  });
  expect(() => rankTable({ images: 2, owners: [], scores: new Float32Array(0) })).toThrow(/no caption/);
});

test("the nearest are ranked once more; what is not among them keeps its place behind them", () => {
  const one: ScoreTable = { images: 4, owners: [0, 3], scores: Float32Array.of(3, 1, 4, 4, 2, 3, 1, 2) };
  // Caption 0 sees 3, 4, 2, 1: its own is second. Caption 1 sees 1, 4, 3, 2: its own is third.
  expect(rankTable(one).textToImage.medianRank).toBe(2.5);
  expect(candidates(one, 1)).toEqual([new Set([0]), new Set([0, 1]), new Set([1]), new Set([1])]);
  const asked: number[][] = [];
  const score = (image: number, caption: number) => {
    asked.push([image, caption]);
    return image === 0 ? 9 : 1;
  };
  // Among the first two, caption 0's own image comes first now; caption 1's is not among them.
  expect(rankTable(one, { count: 2, score }).textToImage).toMatchObject({ medianRank: 2, first: 0.5 });
  const known = candidates(one, 2);
  for (const [image, caption] of asked) expect(known[image as number]?.has(caption as number)).toBe(true);
});

test("by chance: one of n, and the best of several among all", () => {
  const { textToImage, imageToText } = chance({ images: 20, owners: [0, 0, 1, 1, 1, 2] });
  expect(textToImage.recallAt1).toBeCloseTo(1 / 20);
  expect(textToImage.recallAt5).toBeCloseTo(5 / 20);
  expect(textToImage.recallAt10).toBeCloseTo(10 / 20);
  expect(imageToText.recallAt1).toBeCloseTo((2 / 6 + 3 / 6 + 1 / 6) / 3);
  expect(imageToText.recallAt5).toBeCloseTo((1 + 1 + 5 / 6) / 3);
  expect(imageToText.recallAt10).toBe(1);
});
