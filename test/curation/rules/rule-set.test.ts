import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { defaultRules, readRules } from "../../../src/curation/rules/rule-set.ts";
import { broken, found, rulesFiles } from "../../helpers/judging.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const rulesOf = rulesFiles();
const usual = await readRules();

test.each([
  "A black dog is running after a white dog in the snow.",
  "Two children in bright raincoats jump into a puddle while a woman with an umbrella watches them.",
  "A man in a helmet rides his mountain bike down a steep, rocky path.",
  "Four people , all in swimsuits , sit at the edge of a pool .",
  "A brown horse with a white blaze stands behind a wooden fence. Its mane is blowing in the wind, and hills can be seen far away.",
  "The image shows a kitchen. On the stove there is a pot with steam rising from it. To the left of the stove, a window with blue curtains lets in the morning light. A grey cat sits on the sill and looks outside. Several copper pans hang from hooks on the wall, and a wooden table with four chairs stands in the middle of the room.",
  'A street vendor at the corner of 5th Avenue sells "the best pretzels in town" (or so his sign says) for $3.50.',
  "There's a boy on a skateboard. He's in the air, knees bent, about two feet above a set of concrete stairs; three friends film him with their phones.",
])("a good description breaks no rule: %s", (text) => {
  expect(usual.check(text)).toEqual([]);
});

test("returns all broken rules", () => {
  expect(broken("")).toEqual(["length"]);
  expect(broken("I apologize for that. I apologize for that ###")).toEqual([
    "apologies",
    "repeated_sentences",
    "leftovers",
    "unfinished",
  ]);
  expect(found("length", "A cat.")).toBe("has 2 words; at least 5 are wanted");
  expect(found("length", "A small cat sits here. ".repeat(21))).toBe("has 21 sentences; at most 20 are wanted");
  expect(found("length", `${"word ".repeat(151)}.`)).toBe("has 151 words; at most 150 are wanted");
});

describe("a rule file", () => {
  test("overrides the defaults", async () => {
    const text = "A cat";
    expect(broken(text)).toEqual(["unfinished", "length"]);
    expect(broken(text, await rulesOf("rules: { length: false }"))).toEqual(["unfinished"]);
    expect(broken(text, await rulesOf("rules: { length: { min_words: 2 }, unfinished: false }"))).toEqual([]);
    const more = await rulesOf("rules: { length: { min_words: 3 } }");
    expect(found("length", text, more)).toBe("has 2 words; at least 3 are wanted");
    // The options that are not mentioned stay.
    expect(found("length", `${"word ".repeat(151)}.`, more)).toBe("has 151 words; at most 150 are wanted");
  });

  test("that changes nothing has the same digest; any change gives another one", async () => {
    const { digest } = usual;
    const same = ["", "rules: {}", "language: en", "rules: { length: true }", "own: []", "# nothing"];
    expect(new Set((await Promise.all(same.map(rulesOf))).map((rules) => rules.digest))).toEqual(new Set([digest]));
    const { rules, ...rest } = parse(readFileSync(defaultRules, "utf8"));
    const backwards = Object.fromEntries(Object.entries(rules).reverse());
    expect((await rulesOf(JSON.stringify({ ...rest, rules: backwards }))).digest).toBe(digest);
    const others = ["language: de", "rules: { length: false }", "rules: { stuttering: { max_times: 3 } }"];
    const digests = (await Promise.all(others.map(rulesOf))).map((rules) => rules.digest);
    expect(new Set([...digests, digest]).size).toBe(4);
    expect(digest).toMatch(/^[0-9a-f]{12}$/);
  });

  test.each([
    ["rules: { lenght: false }", /rules: .*lenght/],
    ["rules: { length: { min_words: many } }", /rules\.length.*: /],
    ["rules: { length: { min_wrods: 2 } }", /min_wrods/],
    ["rules: { length: { min_words: 200 } }", /rules\.length.*: /],
    ["rules: [length]", /rules: /],
    ["colour: red", /colour/],
    ["- a", /the file: /],
    ["rules: { length: ", /\.yaml: /],
    ["a: &a [*a, *a]", /\.yaml: /],
    ["__proto__: { a: 1 }", /\.yaml: /],
    ["!!js/function 'x'", /\.yaml: /],
  ])("%s is refused in one line that names the file", async (yaml, message) => {
    const error = await rulesOf(yaml).then(
      () => new Error("not refused"),
      (cause: Error) => cause,
    );
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/\.yaml/);
    expect(Object.prototype).not.toHaveProperty("a");
  });

  test("that is missing or expands endlessly is rejected", async () => {
    await expect(readRules("gone.yaml")).rejects.toThrow(/The rules gone.yaml cannot be read: ENOENT/);
    const path = join(temporaryFolder(), "bomb.yaml");
    const levels = Array.from({ length: 20 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`);
    writeFileSync(path, ["a0: &a0 [x]", ...levels].join("\n"));
    await expect(readRules(path)).rejects.toThrow(/bomb\.yaml: Excessive alias count/);
  });
});

describe("any text", () => {
  const pieces = [
    "A dog runs. ",
    "the ",
    '"',
    "(",
    "…",
    "###",
    "<",
    "犬",
    "\n",
    '…"',
    "'",
    "\u0301",
    "\ud83d",
    "-",
    "I'm ",
    "!",
  ];

  test("is checked without an error and deterministically", () => {
    const anything = fc.oneof(
      fc.string({ unit: "binary", maxLength: 500 }),
      fc.string({ unit: "grapheme", maxLength: 500 }),
      fc.array(fc.constantFrom(...pieces), { maxLength: 200 }).map((parts) => parts.join("")),
      fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 300 }).map((units) => String.fromCharCode(...units)),
    );
    fc.assert(
      fc.property(anything, (text) => {
        const reasons = usual.check(text);
        expect(usual.check(text)).toEqual(reasons);
        for (const { rule, message } of reasons) {
          expect(rule).not.toBe("");
          expect(message.length).toBeLessThan(400);
        }
      }),
      { numRuns: 300 },
    );
  });
});
