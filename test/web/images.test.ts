/** Image sizes, and the example images. */
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { examples, fitWithin } from "../../web/chat/images.ts";

test("images keep their aspect ratio and are never enlarged", () => {
  expect(fitWithin(4032, 3024, 1024)).toEqual({ width: 1024, height: 768 });
  expect(fitWithin(3024, 4032, 1024)).toEqual({ width: 768, height: 1024 });
  expect(fitWithin(640, 480, 1024)).toEqual({ width: 640, height: 480 });
  expect(fitWithin(100_000, 1, 1024)).toEqual({ width: 1024, height: 1 });
});

test("every example image is listed with its source", () => {
  const files = readdirSync(new URL("../../examples/images", import.meta.url)).filter((name) => name.endsWith(".jpg"));
  expect(examples.map(({ name }) => name).toSorted()).toEqual(files.toSorted());
  for (const { description, source } of examples) {
    expect(description).not.toBe("");
    expect(source).toMatch(/CC0|public domain/);
  }
});
