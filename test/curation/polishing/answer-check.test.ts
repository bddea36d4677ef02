import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkAnswer } from "../../../src/curation/polishing/answer-check.ts";
import { polishingPrompt } from "../../../src/curation/polishing/plan.ts";

const source = "A  cat on a mat. A cat on a mat.";
const clean = "A cat sits on a mat.";

function judged(text: string, from = source) {
  return checkAnswer({ text, finishReason: "stop" }, from, polishingPrompt);
}

test.each([
  ["surrounding space", ` \n${clean}\n`, []],
  ["quotes", `"${clean}"`, ["quotes"]],
  ["quotes", `“${clean}”`, ["quotes"]],
  ["quotes", `«${clean}»`, ["quotes"]],
  ["announcement", `Here is the corrected paragraph:\n\n${clean}`, ["announcement"]],
  ["announcement", `Here's the revised text: ${clean}`, ["announcement"]],
  ["announcement", `Sure! Here is a corrected version of the given paragraph:\n${clean}`, ["announcement"]],
  ["announcement", `Certainly. The following is the corrected and polished paragraph:\n${clean}`, ["announcement"]],
  ["announcement", `Corrected paragraph: ${clean}`, ["announcement"]],
  ["announcement", `The corrected paragraph is: ${clean}`, ["announcement"]],
  ["announcement and quotes", `Here is the polished paragraph:\n"${clean}"`, ["announcement", "quotes"]],
  ["literal", `Return directly the input paragraph: ${clean}`, ["literal"]],
  ["literal", `Input paragraph:\n${clean}`, ["literal"]],
  ["fence", `\`\`\`\n${clean}\n\`\`\``, ["fence"]],
  ["fence", `\`\`\`text\n${clean}\n\`\`\``, ["fence"]],
  ["thoughts", `<think>\nThe user wants "A cat".\n</think>\n\n${clean}`, ["thoughts"]],
  [
    "all",
    `<think></think>Corrected text:\n\`\`\`\n"${clean}"\n\`\`\``,
    ["thoughts", "announcement", "fence", "quotes"],
  ],
])("taken off for certain: %s %j", (_, answer, rules) => {
  const judgement = judged(answer);
  if (!("text" in judgement)) throw new Error(judgement.message);
  expect(judgement.text).toBe(clean);
  expect([...judgement.rules].sort()).toEqual([...rules].sort());
});

test.each([
  '"Stop" says the sign, and below it stands "Go"',
  '"Cat"',
  "'It's a cat.'",
  "A sign says: no cats.",
  "Here is a cat: it sits on a mat.",
  "The paragraph is already correct. Or so the sign says.",
  "Sure! A cat sits on a mat.",
  "A cat sits on a mat.\n\nNote: I removed the repeated sentence.",
  "The text on the sign is: no cats.",
  "The final score is 3 to 2, as the sign says: goal!",
  "```js\n1\n``` and ```\n2\n```",
  "<think> stands on the wall.",
])("in doubt, it stays as it is: %j", (answer) => {
  // One whose source was in quotes keeps them.
  expect(judged(answer, answer === '"Cat"' ? '"A  cat"' : source)).toEqual({ text: answer, rules: [] });
});

test.each([
  "The paragraph is already correct.",
  "The input paragraph is already correct.",
  "The given text is correct as it is.",
  "No changes are needed.",
  "There are no errors in the given paragraph.",
  '"The paragraph is already correct."',
])("what is said to be correct is what it was: %j", (answer) => {
  expect(judged(answer)).toMatchObject({ text: source });
});

test("called correct and repeated", () => {
  expect(judged(`The input paragraph is already correct.\n\n${source}`)).toEqual({ text: source, rules: ["verdict"] });
});

describe("rejected", () => {
  test.each([
    ["instruction", polishingPrompt],
    ["instruction", "Return directly the input paragraph if it is already correct without explanation."],
    [
      "instruction",
      `${clean} Remove any repeating sentences, meaningless characters, not English sentences, and so on.`,
    ],
    ["refusal", "I'm sorry, but I can't assist with that request."],
    ["refusal", "I’m sorry, but I cannot help with this."],
    ["refusal", "Sorry, I am unable to process the text."],
    ["refusal", "As an AI language model, I have no eyes."],
    ["refusal", "Please provide the paragraph you would like me to fix."],
    ["refusal", "It seems you haven't provided a paragraph."],
    ["refusal", "I cannot fulfill this."],
    ["empty", ""],
    ["empty", '""'],
    ["empty", "Here is the corrected paragraph:"],
    ["empty", "<think>What now?</think>"],
  ])("%s: %j", (rejected, answer) => {
    expect(judged(answer)).toMatchObject({ rejected });
  });

  test("accepts descriptions with an apology, which the filter rules catch", () => {
    for (const text of [
      "I'm sorry I made a mistake. A cat.",
      "I apologize for that. A cat.",
      "I can't see a dog here.",
    ]) {
      expect(judged(text)).toEqual({ text, rules: [] });
    }
    const refusal = "I'm sorry, but I can't help you with this image.";
    expect(judged(refusal, `${refusal} A  cat.`)).toMatchObject({ text: refusal });
  });

  test("accepts words of the instruction that the source contains", () => {
    const sign = 'A sign says "Remove unnecessary repetition" on a wall.';
    expect(judged(sign, sign)).toEqual({ text: sign, rules: [] });
  });
});

test("checks any answer quickly, and checking twice strips nothing more", () => {
  const parts = fc.constantFrom(
    ...[
      '"',
      "```",
      "\n",
      "<think>",
      "</think>",
      "Sure! ",
      "Here is the corrected paragraph:",
      " a",
      "'",
      "no changes ",
    ],
  );
  const answer = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(parts, { maxLength: 60 }).map((all) => all.join("")),
  );
  fc.assert(
    fc.property(answer, answer, (text, from) => {
      const judgement = judged(text, from);
      if ("rejected" in judgement || judgement.rules.includes("already correct")) return;
      expect(text).toContain(judgement.text);
      expect(judgement.text).toBe(judgement.text.trim());
      expect(judged(judgement.text, from)).toMatchObject({ text: judgement.text });
    }),
    { numRuns: 500 },
  );
  const began = performance.now();
  for (const long of ["a ", "sure ", "<think>", "no changes ", '"', "``` ", "the corrected and "])
    judged(long.repeat(20_000));
  expect(performance.now() - began).toBeLessThan(2000);
});
