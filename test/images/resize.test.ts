import fc from "fast-check";
import { expect, test } from "vitest";
import type { Pixels } from "../../src/images/decode.ts";
import { resize } from "../../src/images/resize.ts";

function image(width: number, height: number, value: (x: number, y: number, channel: number) => number): Pixels {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) =>
    value(Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3),
  );
  return { width, height, data };
}

function red({ data }: Pixels): number[] {
  return [...data.filter((_, i) => i % 3 === 0)];
}

/** Computed by Pillow: `Image.fromarray(...).resize((4, 3), Image.BICUBIC)`; the second has its columns done first. */
test.each([
  [7, 5, [57, 131, 126, 162, 155, 148, 148, 139, 103, 127, 143, 130]],
  [5, 11, [96, 129, 151, 126, 123, 118, 149, 164, 131, 159, 134, 93]],
])("%i x %i pixels resized to 4 x 3 as by Pillow", (width, height, expected) => {
  const pixels = image(width, height, (x, y) => (x * 37 + y * 91 + x * y * 13) % 256);
  expect(red(resize(pixels, 4, 3))).toEqual(expected);
});

test("a plain colour stays the same", () => {
  const side = fc.integer({ min: 1, max: 40 });
  fc.assert(
    fc.property(side, side, side, side, fc.nat({ max: 255 }), (width, height, toWidth, toHeight, value) => {
      const resized = resize(
        image(width, height, (_x, _y, channel) => (value + channel) % 256),
        toWidth,
        toHeight,
      );
      expect(resized).toEqual(image(toWidth, toHeight, (_x, _y, channel) => (value + channel) % 256));
    }),
  );
});

test("overshoot at an edge is clipped, not wrapped", () => {
  const edge = image(2, 1, (x) => (x === 0 ? 0 : 255));
  const values = red(resize(edge, 16, 1));
  expect(values[0]).toBe(0);
  expect(values[15]).toBe(255);
  expect(values.every((value, i) => i === 0 || value >= (values[i - 1] ?? 0))).toBe(true);
});

test("resizing to the same size changes nothing", () => {
  const pixels = image(5, 4, (x, y, channel) => x * 40 + y * 10 + channel);
  expect(resize(pixels, 5, 4)).toEqual(pixels);
});
