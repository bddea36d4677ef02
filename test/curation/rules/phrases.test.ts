import { expect, test } from "vitest";
import { broken, found } from "../../helpers/judging.ts";

test.each([
  ["I'm sorry I made a mistake. The image shows a cat.", "I'm sorry I made a mistake"],
  ["A red bus stands at a stop. I’m sorry, I made a mistake...", "I'm sorry I made a mistake"],
  ["i apologize for that. There are two dogs on the beach.", "I apologize for that"],
  ["Two dogs play.\nI APOLOGIZE FOR THE CONFUSION, there is only one.", "I apologize for the confusion"],
])("a model that apologises: %s", (text, phrase) => {
  expect(found("apologies", text)).toBe(`says "${phrase}"`);
});

test.each([
  ["As an AI language model, I cannot see images.", "as an AI"],
  ["Unfortunately I can’t see the image that you mean.", "I can't see"],
  ["Here is the corrected text: a man rides a horse along the beach.", "here is the corrected"],
  ["A man rides a horse. Let me know if you need more!", "let me know if"],
])("a model that speaks of itself: %s", (text, phrase) => {
  expect(found("self_talk", text)).toBe(`says "${phrase}"`);
});

test.each([
  "A sorry little dog sits in the rain beside an empty bowl.",
  "A sign at the shop's door apologizes for the noise of the building site.",
  "The board game on the table is called Sorry, and four children play it.",
  "A mistake in the sign makes the walkers laugh.",
  "A robot with the letters AI on its chest waves at a crowd of visitors.",
])("is no apology and no talk of itself: %s", (text) => {
  expect(broken(text)).toEqual([]);
});
