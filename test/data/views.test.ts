import fc from "fast-check";
import { expect, test } from "vitest";
import { show, unchangedView, viewName, viewsOf } from "../../src/data/decoder.ts";
import type { Pixels } from "../../src/images/decode.ts";

const options = { count: 8, minSide: 0.6 };

/** An image whose pixels say where they are. */
function plane(width: number, height: number): Pixels {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set([i % width, Math.floor(i / width), 7], i * 3);
  return { width, height, data };
}

test("the first view is the image itself, the second its mirror image, every second crop is mirrored", () => {
  const views = viewsOf("cat.jpg", options);
  expect(views[0]).toEqual(unchangedView);
  expect(views[1]).toEqual({ mirrored: true });
  expect(views.map(({ mirrored }) => mirrored)).toEqual([false, true, false, true, false, true, false, true]);
  expect(views.slice(2).every(({ box }) => box)).toBe(true);
});

test("crops lie in the image and are as large as wanted", () => {
  fc.assert(
    fc.property(fc.string(), fc.double({ min: 0.05, max: 1, noNaN: true }), (name, minSide) => {
      for (const { box } of viewsOf(name, { count: 6, minSide }).slice(2)) {
        if (!box) throw new Error("There is no crop");
        expect(Math.min(box.left, box.top)).toBeGreaterThanOrEqual(0);
        expect(Math.max(box.left + box.width, box.top + box.height)).toBeLessThanOrEqual(1 + 1e-9);
        expect(Math.min(box.width, box.height)).toBeGreaterThanOrEqual(minSide);
      }
    }),
  );
});

test("an image has the same views in every run, another image others; fewer are the first of more", () => {
  expect(viewsOf("cat.jpg", options)).toEqual(viewsOf("cat.jpg", options));
  expect(viewsOf("cat.jpg", options)[2]).not.toEqual(viewsOf("dog.jpg", options)[2]);
  expect(viewsOf("cat.jpg", { ...options, count: 3 })).toEqual(viewsOf("cat.jpg", options).slice(0, 3));
});

test("each view has a name of its own", () => {
  const views = [...viewsOf("cat.jpg", options), ...viewsOf("dog.jpg", options).slice(2)];
  expect(new Set(views.map(viewName)).size).toBe(views.length);
  const [crop] = viewsOf("cat.jpg", options).slice(2);
  expect(viewName({ ...crop, mirrored: true })).not.toBe(viewName({ ...crop, mirrored: false }));
  expect(viewName(unchangedView)).toBe("whole");
});

test("a view is shown: whole, mirrored, cropped, and cropped before it is mirrored", () => {
  const pixels = plane(10, 4);
  const columns = ({ width, data }: Pixels) => Array.from({ length: width }, (_, i) => data[i * 3]);
  expect(show(pixels, unchangedView)).toEqual(pixels);
  expect(columns(show(pixels, { mirrored: true }))).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
  const box = { left: 0.1, top: 0.25, width: 0.3, height: 0.5 };
  const cropped = show(pixels, { mirrored: false, box });
  expect([cropped.width, cropped.height, cropped.data[1], columns(cropped)]).toEqual([3, 2, 1, [1, 2, 3]]);
  expect(columns(show(pixels, { mirrored: true, box }))).toEqual([3, 2, 1]);
});
