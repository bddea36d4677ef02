/** Characters that mean nothing in a description. */
import { z } from "zod";
import { quoted } from "./judged-text.ts";
import { rule } from "./rule.ts";

/** In the order in which they are looked for. */
const neverWritten: readonly (readonly [what: string, pattern: RegExp])[] = [
  ["a replacement character", /\ufffd/u],
  ["a control character", /[^\P{Cc}\t\n\r]/u],
  ["half a character", /\p{Cs}/u],
  ["a character of private use", /\p{Co}/u],
  ["an unassigned character", /\p{Cn}/u],
  [
    "an invisible character",
    /[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]/u,
  ],
];

/** Runs of signs, with or without spaces between them. */
const signs = /[\p{P}\p{S}](?:\s?[\p{P}\p{S}])*/gu;

export const meaninglessCharacters = rule(
  z.strictObject({
    /** Most signs in a row, and most of the same one. */
    max_signs: z.number().int().positive(),
    max_same_sign: z.number().int().positive(),
    /** Largest share of signs among all that is no space. */
    max_share: z.number().min(0).max(1),
    /** Most times that a letter comes in a row, and most letters of a word. */
    max_same_letter: z.number().int().min(2).max(1000),
    max_word: z.number().int().min(2),
  }),
  (options) => {
    const sameLetter = new RegExp(`(\\p{L})\\1{${options.max_same_letter}}`, "iu");
    return ({ raw, words }) => {
      for (const [what, pattern] of neverWritten) {
        const found = pattern.exec(raw)?.[0];
        if (found !== undefined) return `has ${what} (U+${codePoint(found)})`;
      }
      let count = 0;
      for (const [run] of raw.matchAll(signs)) {
        const characters = [...run.replace(/\s/g, "")];
        count += characters.length;
        if (characters.length > options.max_signs || longestRun(characters) > options.max_same_sign) {
          return `has the signs ${quoted(run, 20)}`;
        }
      }
      const share = count / Math.max(1, [...raw.replace(/\s/g, "")].length);
      if (share > options.max_share) return `is ${Math.round(100 * share)}% signs`;
      const letters = sameLetter.exec(raw)?.[0];
      if (letters) return `has the letters ${quoted(letters, 20)}`;
      const long = words.find((word) => word.split(/['-]/).some((part) => part.length > options.max_word));
      return long && `has a word of ${long.length} characters, ${quoted(long, 20)}`;
    };
  },
);

function codePoint(character: string): string {
  return (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
}

function longestRun(characters: readonly string[]): number {
  let longest = 0;
  let run = 0;
  characters.forEach((character, i) => {
    run = character === characters[i - 1] ? run + 1 : 1;
    longest = Math.max(longest, run);
  });
  return longest;
}
