import { describe, expect, test } from "vitest";
import { found, rulesFiles } from "../../helpers/judging.ts";

const rulesOf = rulesFiles();

describe("a pattern", () => {
  test("that must not match, with and without ignoring case", async () => {
    const rules = await rulesOf(String.raw`own:
      - { name: watermark, pattern: '\bgetty\s+images\b', flags: i }
      - { name: shouting, pattern: '[A-Z]{6,}' }`);
    expect(found("watermark", "A cat, by Getty  Images.", rules)).toBe('has "Getty Images"');
    expect(found("watermark", "A cat, by a spaghetti image.", rules)).toBeUndefined();
    expect(found("shouting", "A cat that is SLEEPING.", rules)).toBe('has "SLEEPING"');
    expect(found("shouting", "A cat that is sleeping.", rules)).toBeUndefined();
  });

  test("with a minimum and maximum number of matches", async () => {
    const rules = await rulesOf(String.raw`own:
      - { name: colours, pattern: '\b(red|green|blue)\b', min: 1 }
      - { name: commas, pattern: ',', max: 2 }
      - { name: cats, pattern: 'cat', min: 1, max: 2 }`);
    expect(found("colours", "A cat.", rules)).toBe(String.raw`has \b(red|green|blue)\b 0 times; at least 1 are wanted`);
    expect(found("colours", "A red cat, a blue one, a green one.", rules)).toBeUndefined();
    expect(found("commas", "a, b, c.", rules)).toBeUndefined();
    expect(found("commas", "a, b, c, d.", rules)).toBe('has ",", more than 2 times');
    expect(["dog", "cat", "cat cat", "cat cat cat"].map((text) => found("cats", text, rules) === undefined)).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  test("with flags for ^, $ and .", async () => {
    const rules = await rulesOf(
      `own: [{ name: bullet, pattern: '^- ', flags: m }, { name: gap, pattern: 'a.b', flags: s }]`,
    );
    expect(found("bullet", "Things:\n- a cat", rules)).toBe('has "- "');
    expect(found("gap", "a\nb", rules)).toBe('has "a b"');
  });

  test("that backtracks exponentially elsewhere is fast, and empty matches end", async () => {
    const rules = await rulesOf(
      "own: [{ name: slow, pattern: '^(a+)+$' }, { name: nothing, pattern: 'x*', max: 1000 }]",
    );
    const started = performance.now();
    expect(found("slow", `${"a".repeat(90_000)}!`, rules)).toBeUndefined();
    expect(found("nothing", "a".repeat(90_000), rules)).toBe('has "", more than 1000 times');
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

test("a count", async () => {
  const rules = await rulesOf(`own:
    - { name: in detail, count: words, min: 6 }
    - { name: short, count: characters, max: 40 }
    - { name: two, count: sentences, min: 2, max: 2 }`);
  expect(found("in detail", "A cat sits here.", rules)).toBe("has 4 words; at least 6 are wanted");
  expect(found("short", "A cat sits here, and there is a dog beside it.", rules)).toBe(
    "has 46 characters; at most 40 are wanted",
  );
  expect(found("two", "A cat. It sits.", rules)).toBeUndefined();
  expect(found("two", "A cat.", rules)).toBe("has 1 sentences; at least 2 are wanted");
});

test.each([
  ["{ name: a, pattern: '(' }", /a: invalid expression \(: /],
  ["{ name: a, pattern: '((a{100}){100}){100}' }", /a: invalid expression .*: /],
  ["{ name: a }", /own\.0: needs either a pattern or a count/],
  ["{ name: a, pattern: b, count: words, min: 1 }", /own\.0: needs either a pattern or a count/],
  ["{ name: a, count: words }", /own\.0: needs min or max/],
  ["{ name: a, count: words, min: 3, max: 2 }", /own\.0: min is more than max/],
  ["{ name: a, pattern: b, flags: g }", /own\.0\.flags: can have the letters i, m and s/],
  ["{ name: length, count: words, min: 1 }", /own: two rules have the same name/],
  ["{ name: a, pattern: b }, { name: a, pattern: c }", /own: two rules have the same name/],
  ["{ name: a, pattern: b, command: rm }", /own\.0: .*command/],
])("%s is refused", async (own, message) => {
  await expect(rulesOf(`own: [${own}]`)).rejects.toThrow(message);
});
