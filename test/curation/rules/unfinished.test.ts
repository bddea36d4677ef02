import { expect, test } from "vitest";
import { broken, found, rulesFiles } from "../../helpers/judging.ts";

test.each([
  [
    "A little girl is sitting in the kitchen of a",
    'ends without a full stop: "A little girl is sitting in the kitchen of a"',
  ],
  ["A dog runs through the grass...", 'ends without a full stop: "A dog runs through the grass..."'],
  ["A dog runs through the grass…", 'ends without a full stop: "A dog runs through the grass…"'],
  ["A dog runs, a cat sleeps,", 'ends without a full stop: "A dog runs, a cat sleeps,"'],
  [
    `${"A dog runs through the grass. ".repeat(9)}Then it stops at the`,
    'ends without a full stop: "...grass. A dog runs through the grass. Then it stops at the"',
  ],
  ["A dog runs through the.", 'a sentence ends in "the": "A dog runs through the."'],
  ["A man with a hat and. He walks.", 'a sentence ends in "and": "A man with a hat and."'],
  ['A sign says "Stop, and a cyclist waits.', 'has a " without its other half'],
  ["A sign says “Stop, and a cyclist waits.", "has a “ without its other half"],
  ["Ein Schild sagt »Halt, und ein Mann wartet.", "has a » without its other half"],
  ["A cyclist (in red waits at the sign.", "has a ( without its other half"],
  ["A cyclist in red) waits at the sign.", "has a ) without its other half"],
  ["A cyclist (in [red) waits] at the sign.", "has a ) without its other half"],
])("%s", (text, message) => {
  expect(found("unfinished", text)).toBe(message);
});

test.each([
  "A man sits on the bench that he likes to sit on.",
  "The wall is what the house is made of!",
  "Is this the town that they come from?",
  "A dog runs through the grass .",
  'A sign says "Stop!" twice, or "Go!"',
  "A sign above the door says “Stop.”",
  "A cyclist waits at a sign (in the rain).",
  "There are 1) a dog, 2) a cat and 3) a bird.",
  'A 12" ruler and a 5" knife lie on the table.',
  "Her paper was marked with an A.",
  "A man stands in front of the shop of Smith & Co.",
])("is finished: %s", (text) => {
  expect(found("unfinished", text)).toBeUndefined();
  expect(broken(text)).toEqual([]);
});

const rulesOf = rulesFiles();
test("can accept captions without a full stop, and reject other last words", async () => {
  const rules = await rulesOf("rules: { unfinished: { full_stop: false, never_last: [beside] } }");
  expect(broken("A dog runs through the grass", rules)).toEqual([]);
  expect(broken("A dog runs through the", rules)).toEqual([]);
  expect(broken("A dog runs beside", rules)).toContain("unfinished");
});
