/** Texts that are too short or too long. */
import { z } from "zod";
import type { JudgedText } from "./judged-text.ts";
import { rule } from "./rule.ts";

const bound = z.number().int().min(0).optional();

export const length = rule(
  z
    .strictObject({ min_words: bound, max_words: bound, min_sentences: bound, max_sentences: bound })
    .refine(({ min_words = 0, max_words = min_words }) => min_words <= max_words, "min_words is more than max_words")
    .refine(
      ({ min_sentences = 0, max_sentences = min_sentences }) => min_sentences <= max_sentences,
      "min_sentences is more than max_sentences",
    ),
  (options) => (text) =>
    outOfBounds(text, "words", options.min_words, options.max_words) ??
    outOfBounds(text, "sentences", options.min_sentences, options.max_sentences),
);

export const counted = ["words", "sentences", "characters"] as const;

/** What is wrong with how many there are of something. */
export function outOfBounds(
  { raw, words, sentences }: JudgedText,
  what: (typeof counted)[number],
  min = 0,
  max = Number.POSITIVE_INFINITY,
): string | undefined {
  const count = { words: words.length, sentences: sentences.length, characters: raw.length }[what];
  if (count < min) return `has ${count} ${what}; at least ${min} are wanted`;
  if (count > max) return `has ${count} ${what}; at most ${max} are wanted`;
  return undefined;
}
