/** Texts of the review: word diff, invisible characters, and the version to compare with. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Version } from "../../src/curation/entry.ts";
import { comparisonBase, diffWords, hasChanges, showHidden, splitHidden } from "../../web/review/text.ts";

const shown = (before: string, after: string) =>
  diffWords(before, after)
    .map(({ kind, text }) => ({ same: text, removed: `[-${text}-]`, added: `{+${text}+}` })[kind])
    .join("");

test.each([
  ["a cat", "a cat", "a cat"],
  ["a cat cat sits", "a cat sits", "a cat [-cat -]sits"],
  ["the old cat", "a grey dog", "[-the old cat-]{+a grey dog+}"],
  ["A cat", "A cat.", "A cat{+.+}"],
  ["一只猫坐在桌子上", "一只狗坐在桌子上", "一只[-猫-]{+狗+}坐在桌子上"],
  ["", "a", "{+a+}"],
])("from %j to %j", (before, after, expected) => {
  expect(shown(before, after)).toBe(expected);
});

test("the pieces contain both texts", () => {
  const words = fc.array(fc.constantFrom("a", "cat", " ", "\n", ".", "猫", "\u202E", "<b>"), { maxLength: 30 });
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    words.map((all) => all.join("")),
  );
  fc.assert(
    fc.property(text, text, (before, after) => {
      const pieces = diffWords(before, after);
      const joined = (left: string) => pieces.flatMap(({ kind, text }) => (kind === left ? [] : [text])).join("");
      expect(joined("added")).toBe(before);
      expect(joined("removed")).toBe(after);
      expect(hasChanges(pieces)).toBe(before !== after);
    }),
  );
});

test("long texts with nothing in common are diffed in time", () => {
  const long = (letter: string) => Array.from({ length: 4000 }, (_, i) => `${letter}${i}`).join(" ");
  const began = performance.now();
  expect(hasChanges(diffWords(long("a"), long("b")))).toBe(true);
  expect(performance.now() - began).toBeLessThan(2000);
});

test("invisible characters and bidirectional marks are shown by their codes", () => {
  expect(showHidden("a\u202Egnp.exe\u0000\u200b")).toBe("a[U+202E]gnp.exe[U+0000][U+200B]");
  expect(showHidden("\ud800 lone")).toBe("[U+D800] lone");
  expect(showHidden("\u{1F600} 猫 é\n\tb")).toBe("\u{1F600} 猫 é\n\tb");
  expect(splitHidden("<b>")).toEqual([{ text: "<b>", hidden: false }]);
});

test("a text is compared with the version it was made from, also after an undo", () => {
  const version = (id: number, parent?: number, undoes?: number) =>
    ({ id, parent, details: undoes === undefined ? {} : { undoes } }) as Version;
  expect(comparisonBase([version(1)])).toBeUndefined();
  expect(comparisonBase([version(1), version(2, 1)])?.id).toBe(1);
  expect(comparisonBase([version(1), version(2, 1), version(3, 2)])?.id).toBe(2);
  expect(comparisonBase([version(1), version(2, 1), version(3, 2), version(4, 3, 3)])?.id).toBe(1);
  const twice = [version(1), version(2, 1), version(3, 2), version(4, 3), version(5, 4, 4), version(6, 5, 3)];
  expect(comparisonBase(twice)?.id).toBe(1);
});
