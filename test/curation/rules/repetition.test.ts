import { describe, expect, test } from "vitest";
import { broken, found, rulesFiles } from "../../helpers/judging.ts";

/** What the first stage's small model wrote of a climber and of a dog. */
const climber = `The man is standing on a rock and is wearing a helmet. ${"He is wearing a leash and is climbing a rock. ".repeat(9)}`;
const path = `The dog is running down the path${" of the dog running down the path".repeat(12)}.`;

describe("sentences", () => {
  test("that repeat are counted, ignoring case and punctuation", () => {
    expect(found("repeated_sentences", climber)).toBe('says 9 times "He is wearing a leash and is climbing a rock."');
    expect(found("repeated_sentences", "A cat sleeps here. It is warm. a cat sleeps here!")).toBe(
      'says 2 times "A cat sleeps here."',
    );
    expect(found("repeated_sentences", "一只猫在睡觉。天气很好。一只猫在睡觉。")).toBe('says 2 times "一只猫在睡觉。"');
  });

  test.each([
    "A cat sleeps on a chair. A cat sleeps on a bed. The cats are alike.",
    'The boys run. One shouts "Go!" "Go!" A dog runs beside them.',
    "A man has a hat. A man has a hat and a coat.",
  ])("that differ may stay: %s", (text) => {
    expect(found("repeated_sentences", text)).toBeUndefined();
  });
});

describe("runs of words", () => {
  test("that repeat are measured as a share of the text", () => {
    expect(found("repeated_runs", path)).toBe(
      '89% of it was said before, for example 12 times "running down the path of"',
    );
    expect(found("repeated_runs", climber)).toMatch(/^78% of it was said before, for example 9 times/);
    // Five words twice, of 20: exactly the share that may be.
    const [run, others] = ["one two three four five", "a b c d e f g h i j"];
    expect(found("repeated_runs", `${run} ${others} ${run}.`)).toBeUndefined();
    expect(found("repeated_runs", `${run} ${others.slice(2)} ${run}.`)).toBe(
      '26% of it was said before, for example 2 times "one two three four five"',
    );
  });

  test("overlap, and a word counts once", () => {
    expect(found("repeated_runs", "a b a b a b a b a b a b.")).toMatch(/^83% .* 4 times "a b a b a"$/);
  });

  test.each([
    "A man in a blue shirt talks to a woman in a red dress, and a child in a green coat looks at a man in a grey suit.",
    "On the left there is a tall tree. On the right there is a small house. In the middle there is a winding path that leads to the sea.",
  ])("of ordinary texts are not: %s", (text) => {
    expect(broken(text)).toEqual([]);
  });
});

describe("words in a row", () => {
  const rulesOf = rulesFiles();

  test("are counted", () => {
    expect(found("stuttering", "The man is very, very, very tall.")).toBe('"very" 3 times in a row');
    expect(found("stuttering", "A dog The the the")).toBe('"the" 3 times in a row');
  });

  test("can occur twice by default", async () => {
    const text = "A very very small bird sits on a wire above the street.";
    expect(broken(text)).toEqual([]);
    const strict = await rulesOf("rules: { stuttering: { max_times: 1 } }");
    expect(found("stuttering", text, strict)).toBe('"very" 2 times in a row');
  });
});
