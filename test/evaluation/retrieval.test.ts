import { expect, test } from "vitest";
import { rankAll } from "../../src/evaluation/retrieval.ts";

const at = (...values: number[]) => Float32Array.from(values);

test("each caption looks for its picture, each picture for the best of its captions", () => {
  const pictures = [at(1, 0), at(0, 1)];
  const captions = [
    { own: 0, embedding: at(0.9, 0.1) },
    { own: 0, embedding: at(0.2, 0.8) },
    { own: 1, embedding: at(0.6, 0.4) },
  ];
  // Of the captions the first finds its picture. The second picture sees 0.1, 0.8 and its own 0.4.
  expect(rankAll(pictures, captions)).toEqual({
    pictures: 2,
    captions: 3,
    picturesByCaption: { medianRank: 2, first: 1 / 3, firstFive: 1, firstTen: 1 },
    captionsByPicture: { medianRank: 1.5, first: 0.5, firstFive: 1, firstTen: 1 },
  });
  expect(() => rankAll(pictures, [])).toThrow(/no caption/);
});
