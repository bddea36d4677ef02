/** 3 x 2 pixels, each with its number in all channels. */
import { expect, test } from "vitest";
import { CLIP, crop, EFFICIENTNET, horizontalFlip, preprocess, toTensor } from "../../src/images/preprocess.ts";

const numbered = { width: 3, height: 2, data: Uint8Array.from({ length: 18 }, (_, i) => Math.floor(i / 3)) };

function numbers({ data }: { data: Uint8Array }): number[] {
  return [...data.filter((_, i) => i % 3 === 0)];
}

test("a flip exchanges left and right and keeps the order of channels", () => {
  expect(numbers(horizontalFlip(numbered))).toEqual([2, 1, 0, 5, 4, 3]);
  expect([...horizontalFlip({ width: 2, height: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6) }).data]).toEqual([
    4, 5, 6, 1, 2, 3,
  ]);
  expect(horizontalFlip(horizontalFlip(numbered))).toEqual(numbered);
});

test("a crop keeps the pixels inside its box", () => {
  expect(numbers(crop(numbered, { left: 1 / 3, top: 0.5, width: 2 / 3, height: 0.5 }))).toEqual([4, 5]);
  expect(crop(numbered, { left: 0, top: 0, width: 1, height: 1 })).toEqual(numbered);
  expect(crop(numbered, { left: 0.99, top: 0.99, width: 0.01, height: 0.01 })).toMatchObject({ width: 1, height: 1 });
  expect(() => crop(numbered, { left: 0.5, top: 0, width: 0.6, height: 1 })).toThrow(RangeError);
  expect(() => crop(numbered, { left: 0, top: 0, width: 0, height: 1 })).toThrow(RangeError);
});

test("a tensor has its channels first, normalised", () => {
  const pixels = { width: 2, height: 1, data: Uint8Array.of(127, 255, 0, 255, 127, 127) };
  const expected = [0, 1, 1, 0, -127 / 128, 0];
  toTensor(pixels, EFFICIENTNET).forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i] ?? Number.NaN, 6);
  });
  expect(toTensor(pixels, CLIP)[2]).toBeCloseTo((1 - 0.4578275) / 0.26130258, 5);
});

test("preprocessing gives a square for any image size", () => {
  expect(preprocess(numbered, { size: 4, ...CLIP }).shape).toEqual([3, 4, 4]);
});
