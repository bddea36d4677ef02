/** The interface of rules, the preparation of texts, and rules by regular expressions. */

import { RE2JS } from "re2js";
import { z } from "zod";

/** A text with its sentences and words. */
export interface TextToCheck {
  readonly raw: string;
  /** Sentences with their punctuation; without those that have neither letters nor digits. */
  readonly sentences: readonly string[];
  /** Words in lower case, with straight apostrophes. */
  readonly words: readonly string[];
}

/** Ends of sentences: a full stop and whitespace, a full stop of languages that write no spaces, or a newline. */
const sentenceEnd = /(?<=[.!?…؟।]["'”’»)\]]{0,3})\s+|(?<=[。！？][”」』）]?)(?![”」』）])|\n+/u;

/** A word, or one character in scripts without spaces between words. */
const word =
  /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Laoo}\p{sc=Khmr}\p{sc=Mymr}]\p{M}*|[\p{L}\p{M}\p{N}]+(?:['-][\p{L}\p{M}\p{N}]+)*/gu;

/** Splits a text into sentences and words, in linear time. */
export function prepareText(raw: string): TextToCheck {
  const sentences = raw
    .split(sentenceEnd)
    .map((sentence) => sentence.trim())
    .filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
  return { raw, sentences, words: splitWords(raw) };
}

/** Splits a text into words in lower case, with straight apostrophes. */
export function splitWords(text: string): string[] {
  return text.toLowerCase().replaceAll("’", "'").match(word) ?? [];
}

/** Quotes the start of a text in one line, for messages. */
export function quoteExcerpt(text: string, length = 80): string {
  const characters = [...text.slice(0, 2 * length + 2).replace(/\s+/g, " ")];
  return `"${characters.length > length ? `${characters.slice(0, length).join("").trimEnd()}...` : characters.join("")}"`;
}

/** Returns a message if a text breaks the rule. */
export type Check = (text: TextToCheck) => string | undefined;

/** A rule with its options. */
export interface Rule<Options> {
  /** Schema of the options in a file. */
  readonly options: z.ZodType<Options>;
  /**
   * Creates the check for texts in a language (ISO 639-1).
   *
   * @throws Error if an option is invalid
   */
  createCheck(options: Options, language: string): Check | Promise<Check>;
}

/** Infers the type of the options from the schema. */
export function defineRule<Options>(
  options: z.ZodType<Options>,
  createCheck: Rule<Options>["createCheck"],
): Rule<Options> {
  return { options, createCheck };
}

const flagBits: Readonly<Record<string, number>> = { i: RE2JS.CASE_INSENSITIVE, m: RE2JS.MULTILINE, s: RE2JS.DOTALL };

/** Compiles a regular expression with RE2, whose time is linear in the text. @throws Error if the expression is invalid */
export function compilePattern(pattern: string, flags = ""): RE2JS {
  try {
    return RE2JS.compile(
      pattern,
      [...flags].reduce((bits, flag) => bits | (flagBits[flag] ?? 0), 0),
    );
  } catch (cause) {
    throw new Error(
      `invalid expression ${pattern}: ${(cause as Error).message} (the syntax is RE2's: no backreferences, no lookaround)`,
      { cause },
    );
  }
}

/** Texts that match one of the named patterns; `false` turns a pattern off. */
export const leftovers = defineRule(
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
