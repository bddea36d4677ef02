import { expect, test } from "vitest";
import { broken, found } from "../../helpers/judging.ts";

const caught = (text: string) => found("meaningless_characters", `A dog runs along the beach${text} in the sun.`);

test.each([
  ["\ufffd", "has a replacement character (U+FFFD)"],
  ["\0", "has a control character (U+0000)"],
  ["\u001b[2J", "has a control character (U+001B)"],
  ["\ud800", "has half a character (U+D800)"],
  ["\ue000", "has a character of private use (U+E000)"],
  ["\u0378", "has an unassigned character (U+0378)"],
  ["\u200b", "has an invisible character (U+200B)"],
  ["\u202e", "has an invisible character (U+202E)"],
  [" !!!!", 'has the signs "!!!!"'],
  [" .....", 'has the signs "....."'],
  [" - - - -", 'has the signs "- - - -"'],
  [" @#$%^", 'has the signs "@#$%^"'],
  [" 🐶🐶🐶🐶", 'has the signs "🐶🐶🐶🐶"'],
  [" aaaaaah", 'has the letters "aaaaa"'],
  [` ${"abc".repeat(20)}`, `has a word of 60 characters, "abcabcabcabcabcabcab..."`],
])("%j", (text, message) => {
  expect(caught(text)).toBe(message);
});

test("a text that is mostly symbols", () => {
  expect(found("meaningless_characters", "a = b + c; (d / e) * f;")).toMatch(/^is \d+% signs$/);
});

test.each([
  'A sign says "Stop!", and a cyclist (in red) has stopped.',
  "A boy's T-shirt has the number 1000000 on it... and he is proud!",
  "A café in Zürich serves a crème brûlée for 5.50 €.",
  "A family 👨‍👩‍👧 of three waits, umbrellas up, for the 10:45 train.",
  "A dog runs along the beach .",
  "Two people look at each other?! One of them laughs.",
  "A well-known mother-in-law-and-daughter-in-law-and-granddaughter contest takes place on a stage.",
])("is written as people write: %s", (text) => {
  expect(broken(text)).toEqual([]);
});
