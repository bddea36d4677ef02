import { expect, test } from "vitest";
import { candidates, chance, rankTable, type ScoreTable } from "../../src/evaluation/retrieval.ts";

/** Two images; the first has two captions, the second one. */
const table: ScoreTable = {
  images: 2,
  owners: [0, 0, 1],
  scores: Float32Array.of(0.9, 0.2, 0.6, 0.1, 0.8, 0.4),
};

test("ranks the image of each caption, and the best caption of each image", () => {
  // Only the first caption ranks its image first. The scores of the second image are 0.1, 0.8 and 0.4 for its own caption.
  expect(rankTable(table)).toEqual({
    textToImage: { medianRank: 2, recallAt1: 1 / 3, recallAt5: 1, recallAt10: 1 },
    imageToText: { medianRank: 1.5, recallAt1: 0.5, recallAt5: 1, recallAt10: 1 },
  });
  expect(() => rankTable({ images: 2, owners: [], scores: new Float32Array(0) })).toThrow(/no captions/);
});

test("re-ranks the nearest candidates; all others stay behind them", () => {
  const one: ScoreTable = { images: 4, owners: [0, 3], scores: Float32Array.of(3, 1, 4, 4, 2, 3, 1, 2) };
  // Caption 0 has the scores 3, 4, 2, 1: its image is second. Caption 1 has 1, 4, 3, 2: its image is third.
  expect(rankTable(one).textToImage.medianRank).toBe(2.5);
  expect(candidates(one, 1)).toEqual([new Set([0]), new Set([0, 1]), new Set([1]), new Set([1])]);
  const scored: number[][] = [];
  const score = (image: number, caption: number) => {
    scored.push([image, caption]);
    return image === 0 ? 9 : 1;
  };
  // Of the two candidates, caption 0's image is first now; caption 1's image is not a candidate.
  expect(rankTable(one, { count: 2, score }).textToImage).toMatchObject({ medianRank: 2, recallAt1: 0.5 });
  const chosen = candidates(one, 2);
  for (const [image, caption] of scored) expect(chosen[image as number]?.has(caption as number)).toBe(true);
});

test("chance: one of n, and the best of several", () => {
  const { textToImage, imageToText } = chance({ images: 20, owners: [0, 0, 1, 1, 1, 2] });
  expect(textToImage.recallAt1).toBeCloseTo(1 / 20);
  expect(textToImage.recallAt5).toBeCloseTo(5 / 20);
  expect(textToImage.recallAt10).toBeCloseTo(10 / 20);
  expect(imageToText.recallAt1).toBeCloseTo((2 / 6 + 3 / 6 + 1 / 6) / 3);
  expect(imageToText.recallAt5).toBeCloseTo((1 + 1 + 5 / 6) / 3);
  expect(imageToText.recallAt10).toBe(1);
});
