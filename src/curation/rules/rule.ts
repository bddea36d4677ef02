/** The interface of rules, text preparation, and RE2 patterns. */

import { RE2JS } from "re2js";
import { z } from "zod";

// A text as rules look at it: its sentences and words. All of it takes time in proportion to the text, whatever the text is.

export interface TextToCheck {
  readonly raw: string;
  /** With their punctuation, as they are written; what has neither letter nor digit is none. */
  readonly sentences: readonly string[];
  /** In lower case, with straight apostrophes. */
  readonly words: readonly string[];
}

/** After a full stop and a space, after a full stop of the languages that write no spaces, and at a new line. */
const sentenceEnd = /(?<=[.!?…؟।]["'”’»)\]]{0,3})\s+|(?<=[。！？][”」』）]?)(?![”」』）])|\n+/u;

/** A word; in writing without spaces between words, each character. */
const word =
  /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}]\p{M}*|[\p{L}\p{M}\p{N}]+(?:['-][\p{L}\p{M}\p{N}]+)*/gu;

export function prepareText(raw: string): TextToCheck {
  const sentences = raw
    .split(sentenceEnd)
    .map((sentence) => sentence.trim())
    .filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
  return { raw, sentences, words: splitWords(raw) };
}

/** The words of a text, in lower case, with straight apostrophes. */
export function splitWords(text: string): string[] {
  return text.toLowerCase().replaceAll("’", "'").match(word) ?? [];
}

/** The beginning of a text in quotation marks, for a message of one line. */
export function quoteExcerpt(text: string, length = 80): string {
  const characters = [...text.slice(0, 2 * length + 2).replace(/\s+/g, " ")];
  return `"${characters.length > length ? `${characters.slice(0, length).join("").trimEnd()}...` : characters.join("")}"`;
}

/** What is wrong with a text, for people; undefined if nothing is. */
export type Check = (text: TextToCheck) => string | undefined;

export interface Rule<Options> {
  /** What can be said of it in a file of rules. */
  readonly options: z.ZodType<Options>;
  /**
   * The rule with its options, for texts of a language (ISO 639-1).
   * @throws Error saying what is wrong with the options
   */
  createCheck(options: Options, language: string): Check | Promise<Check>;
}

/** Lets TypeScript see that schema and function fit. */
export function defineRule<Options>(
  options: z.ZodType<Options>,
  createCheck: Rule<Options>["createCheck"],
): Rule<Options> {
  return { options, createCheck };
}

// * Regular expressions from files of rules, and what is left over from other places (`leftovers`). They run in RE2's engine, whose time
// grows with the text and not faster, whatever the expression: none can hang a run.

const flagBits: Readonly<Record<string, number>> = { i: RE2JS.CASE_INSENSITIVE, m: RE2JS.MULTILINE, s: RE2JS.DOTALL };

/** @throws Error saying what is wrong with the expression */
export function compilePattern(pattern: string, flags = ""): RE2JS {
  try {
    return RE2JS.compile(
      pattern,
      [...flags].reduce((bits, flag) => bits | (flagBits[flag] ?? 0), 0),
    );
  } catch (cause) {
    throw new Error(
      `the expression ${pattern} cannot be used: ${(cause as Error).message} (the syntax is RE2's: no backreferences, no lookaround)`,
      { cause },
    );
  }
}

export const leftovers = defineRule(
  // What it is called, and what it looks like; false where it may stay.
  z.strictObject({ patterns: z.record(z.string(), z.union([z.string(), z.literal(false)])) }),
  ({ patterns }) => {
    const compiled = Object.entries(patterns).flatMap(([what, pattern]) =>
      pattern === false ? [] : [{ what, expression: compilePattern(pattern, "i") }],
    );
    return ({ raw }) => {
      for (const { what, expression } of compiled) {
        const match = expression.matcher(raw);
        if (match.find()) return `has ${what}, ${quoteExcerpt(match.group() ?? "", 40)}`;
      }
      return undefined;
    };
  },
);
