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
    imagesByCaption: { medianRank: 2, first: 1 / 3, firstFive: 1, firstTen: 1 },
    captionsByImage: { medianRank: 1.5, first: 0.5, firstFive: 1, firstTen: 1 },
  });
  expect(() => rankTable({ images: 2, owners: [], scores: new Float32Array(0) })).toThrow(/no caption/);
});

test("the nearest are ranked once more; what is not among them keeps its place behind them", () => {
  const one: ScoreTable = { images: 4, owners: [0, 3], scores: Float32Array.of(3, 1, 4, 4, 2, 3, 1, 2) };
  // Caption 0 sees 3, 4, 2, 1: its own is second. Caption 1 sees 1, 4, 3, 2: its own is third.
  expect(rankTable(one).imagesByCaption.medianRank).toBe(2.5);
  expect(candidates(one, 1)).toEqual([new Set([0]), new Set([0, 1]), new Set([1]), new Set([1])]);
  const asked: number[][] = [];
  const score = (image: number, caption: number) => {
    asked.push([image, caption]);
    return image === 0 ? 9 : 1;
  };
  // Among the first two, caption 0's own image comes first now; caption 1's is not among them.
  expect(rankTable(one, { count: 2, score }).imagesByCaption).toMatchObject({ medianRank: 2, first: 0.5 });
  const known = candidates(one, 2);
  for (const [image, caption] of asked) expect(known[image as number]?.has(caption as number)).toBe(true);
});

test("by chance: one of n, and the best of several among all", () => {
  const { imagesByCaption, captionsByImage } = chance({ images: 20, owners: [0, 0, 1, 1, 1, 2] });
  expect(imagesByCaption.first).toBeCloseTo(1 / 20);
  expect(imagesByCaption.firstFive).toBeCloseTo(5 / 20);
  expect(imagesByCaption.firstTen).toBeCloseTo(10 / 20);
  expect(captionsByImage.first).toBeCloseTo((2 / 6 + 3 / 6 + 1 / 6) / 3);
  expect(captionsByImage.firstFive).toBeCloseTo((1 + 1 + 5 / 6) / 3);
  expect(captionsByImage.firstTen).toBe(1);
});
