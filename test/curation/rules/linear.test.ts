import { expect, test } from "vitest";
import { readRules } from "../../../src/curation/rules/rule-set.ts";

const usual = await readRules();

/** As long as a text may be, of what regular expressions like least. */
const most = 100_000;
const units = [
  "A dog runs through the grass. ",
  "a",
  "a ",
  " ",
  "\n",
  ".",
  ". ",
  "犬",
  "。",
  "-",
  "a-",
  "'",
  '"',
  "(",
  ")",
  "<",
  "<a",
  "&a",
  "a@",
  "a.",
  "www",
  "#",
  "1)",
  "\u0301",
  "👨‍👩‍👧",
  "!?",
  "I'm sorry I made a ",
  "…\"'",
];

test.each(units)("a long text of %j is judged in time that grows with its length", (unit) => {
  const text = `${unit.repeat(Math.floor((most - 1) / unit.length))}x`;
  const started = performance.now();
  usual.check(text);
  // It takes some tenths of a second; if time grew with the square of the length, it would be minutes.
  expect(performance.now() - started).toBeLessThan(5000);
});

test("a longer text is dropped without running the rules", () => {
  const started = performance.now();
  expect(usual.check("A dog runs. ".repeat(100_000))).toEqual([
    { rule: "length", message: "has 1200000 characters; at most 100000 are looked at" },
  ]);
  expect(performance.now() - started).toBeLessThan(100);
});
