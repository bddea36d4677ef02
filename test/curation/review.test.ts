import { join } from "node:path";
import { expect, test } from "vitest";
import { ReviewQueue, reviewPace } from "../../src/curation/review.ts";
import { reviewedProject } from "../helpers/reviewed.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

test("computes the pace of the latest decisions without breaks; undefined at first", () => {
  const minute = 60_000;
  expect(reviewPace([])).toBeUndefined();
  expect(reviewPace([0, 1000, 2000])).toBeUndefined();
  expect(reviewPace([3000, 0, 1000, 2000])).toBe(1000);
  expect(reviewPace([0, 1000, 2000, 10 * minute, 10 * minute + 4000])).toBe(2000);
  const slow = Array.from({ length: 100 }, (_, i) => i * 9000);
  const fast = Array.from({ length: 31 }, (_, i) => 1000 * minute + i * 2000);
  expect(reviewPace([...slow, ...fast])).toBe(2000);
});

test("a reservation of a pair expires", () => {
  let now = 0;
  const { store } = reviewedProject(join(temporaryFolder(), "claims"), ["a", "b"]);
  const desk = new ReviewQueue(store, () => now);
  const turn = (reviewer: string) => desk.next({ filter: "unreviewed" }, { reviewer })?.image.id;
  expect([turn("Ada"), turn("Ben"), turn("Ada")]).toEqual([1, 2, 1]);
  // Somebody else's claim is not taken over by looking, too.
  desk.claim(1, "Cleo");
  expect(turn("Ben")).toBe(2);
  now = 91_000;
  expect(turn("Ben")).toBe(1);
});
