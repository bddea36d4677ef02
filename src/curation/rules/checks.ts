/** The built-in rules on characters, language, length, phrases, repetition and completeness. */
import { z } from "zod";
import { defineRule, quoteExcerpt, splitWords, type TextToCheck } from "./rule.ts";

/** Characters that no description contains, in the order of the checks. */
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

/** Runs of punctuation and symbols, with or without spaces between them. */
const signs = /[\p{P}\p{S}](?:\s?[\p{P}\p{S}])*/gu;

/** Control characters, and many symbols or equal letters in a row. */
export const meaninglessCharacters = defineRule(
  z.strictObject({
    /** Maximum number of symbols in a row, and of the same symbol. */
    max_signs: z.number().int().positive(),
    max_same_sign: z.number().int().positive(),
    /** Maximum share of symbols, without whitespace. */
    max_share: z.number().min(0).max(1),
    /** Maximum number of the same letter in a row, and of letters in a word. */
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
          return `has the signs ${quoteExcerpt(run, 20)}`;
        }
      }
      const share = count / Math.max(1, [...raw.replace(/\s/g, "")].length);
      if (share > options.max_share) return `is ${Math.round(100 * share)}% signs`;
      const letters = sameLetter.exec(raw)?.[0];
      if (letters) return `has the letters ${quoteExcerpt(letters, 20)}`;
      const long = words.find((word) => word.split(/['-]/).some((part) => part.length > options.max_word));
      return long && `has a word of ${long.length} characters, ${quoteExcerpt(long, 20)}`;
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

const share = z.number().min(0).max(1);
const nameOf = new Intl.DisplayNames(["en"], { type: "language" });

/** Scripts that Unicode's script property splits. */
const unicodeScripts: Readonly<Record<string, readonly string[]>> = {
  Hans: ["Han"],
  Hant: ["Han"],
  Jpan: ["Han", "Hira", "Kana"],
  Kore: ["Hang", "Han"],
};

/** The share of letters that do not belong to the script of the language. */
export const foreignScript = defineRule(z.strictObject({ max_share: share }), ({ max_share }, language) => {
  const script = new Intl.Locale(language).maximize().script ?? "Latn";
  const own = new RegExp(
    `[${(unicodeScripts[script] ?? [script]).map((name) => `\\p{scx=${name}}`).join("")}\\p{scx=Zyyy}]`,
    "u",
  );
  return ({ raw }) => {
    let letters = 0;
    let foreign = "";
    let count = 0;
    for (const [letter] of raw.matchAll(/\p{L}/gu)) {
      letters++;
      if (own.test(letter)) continue;
      count++;
      if (foreign.length < 40) foreign += letter;
    }
    if (count <= max_share * letters) return undefined;
    return `${count} of ${letters} letters are not ${nameOf.of(language)}: ${quoteExcerpt(foreign, 20)}`;
  };
});

/**
 * Sentences that a detector of 60 languages scores higher for another language, by at least `margin` (scores are from 0 to 1, by the
 * frequency of letter sequences). Short sentences are skipped.
 */
export const foreignLanguage = defineRule(
  z.strictObject({ margin: share, min_words: z.number().int().positive() }),
  async ({ margin, min_words }, language) => {
    // Loaded lazily: the table is large, and only this rule uses it.
    const { eld } = await import("eld/small");
    const known = Object.values(eld.info().Languages);
    if (!known.includes(language)) {
      throw new Error(`the language ${language} cannot be detected (supported: ${known.join(", ")})`);
    }
    return ({ sentences }) => {
      for (const sentence of sentences) {
        if (splitWords(sentence).length < min_words) continue;
        const found = eld.detect(sentence);
        if (found.language === "" || found.language === language) continue;
        const scores = found.getScores();
        if ((scores[found.language] ?? 0) - (scores[language] ?? 0) < margin) continue;
        return `is ${nameOf.of(found.language)}: ${quoteExcerpt(sentence)}`;
      }
      return undefined;
    };
  },
);

const bound = z.number().int().min(0).optional();

/** Texts that are too short or too long. */
export const length = defineRule(
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

/** What can be counted. */
export const counted = ["words", "sentences", "characters"] as const;

/** The message if a count is out of bounds. */
export function outOfBounds(
  { raw, words, sentences }: TextToCheck,
  what: (typeof counted)[number],
  min = 0,
  max = Number.POSITIVE_INFINITY,
): string | undefined {
  const count = { words: words.length, sentences: sentences.length, characters: raw.length }[what];
  if (count < min) return `has ${count} ${what}; at least ${min} are wanted`;
  if (count > max) return `has ${count} ${what}; at most ${max} are wanted`;
  return undefined;
}

/** Texts that contain one of the phrases, ignoring case, punctuation and the form of apostrophes. */
export const phrases = defineRule(
  z.strictObject({ phrases: z.array(z.string().regex(/\p{L}/u, "needs a word")) }),
  (options) => {
    const candidates = options.phrases.map((phrase) => ({ phrase, words: ` ${splitWords(phrase).join(" ")} ` }));
    return ({ words }) => {
      const text = ` ${words.join(" ")} `;
      const found = candidates.find((phrase) => text.includes(phrase.words));
      return found && `says "${found.phrase}"`;
    };
  },
);

/** Repeated sentences, ignoring case and punctuation. Sentences of one or two words are skipped. */
export const repeatedSentences = defineRule(
  z.strictObject({ max_times: z.number().int().positive() }),
  ({ max_times }) =>
    ({ sentences }) => {
      const times = new Map<string, { count: number; first: string }>();
      for (const sentence of sentences) {
        const words = splitWords(sentence);
        if (words.length < 3) continue;
        const key = words.join(" ");
        const known = times.get(key);
        if (known) known.count++;
        else times.set(key, { count: 1, first: sentence });
      }
      let most = { count: 0, first: "" };
      for (const sentence of times.values()) if (sentence.count > most.count) most = sentence;
      return most.count > max_times ? `says ${most.count} times ${quoteExcerpt(most.first)}` : undefined;
    },
);

/** The share of the words in runs of `words` words that occurred before. */
export const repeatedRuns = defineRule(
  z.strictObject({ words: z.number().int().min(2).max(50), max_share: z.number().min(0).max(1) }),
  ({ words: length, max_share }) =>
    ({ words }) => {
      const seen = new Map<string, number>();
      let repeated = 0;
      /** Position after the last counted word, so that a word in two runs counts once. */
      let counted = 0;
      let most = { run: "", times: 1 };
      for (let at = 0; at + length <= words.length; at++) {
        const run = words.slice(at, at + length).join(" ");
        const times = (seen.get(run) ?? 0) + 1;
        seen.set(run, times);
        if (times === 1) continue;
        repeated += at + length - Math.max(at, counted);
        counted = at + length;
        if (times > most.times) most = { run, times };
      }
      const share = repeated / Math.max(1, words.length);
      if (share <= max_share) return undefined;
      return `${Math.round(100 * share)}% of it was said before, for example ${most.times} times ${quoteExcerpt(most.run)}`;
    },
);

/** The same word several times in a row. */
export const stuttering = defineRule(
  z.strictObject({ max_times: z.number().int().positive() }),
  ({ max_times }) =>
    ({ words }) => {
      for (let start = 0, at = 1; at <= words.length; at++) {
        if (words[at] === words[start]) continue;
        if (at - start > max_times) return `${quoteExcerpt(words[start] ?? "")} ${at - start} times in a row`;
        start = at;
      }
      return undefined;
    },
);

/** A full stop of any language, and closing quotes or brackets after it. A text that ends in "..." is unfinished. */
const finished = /(?<!\.\s?\.)[.!?。！？؟।។။]\s?["'”’»)\]」』）]{0,3}$/u;

const closing: Readonly<Record<string, string>> = { ")": "(", "]": "[", "}": "{", "」": "「", "』": "『", "）": "（" };
const opening = new Set(Object.values(closing));

/** Texts that stop in the middle. */
export const unfinished = defineRule(
  z.strictObject({
    /** Whether a text must end with a full stop. */
    full_stop: z.boolean(),
    /** Words that end no sentence. */
    never_last: z.array(z.string().min(1)),
  }),
  ({ full_stop, never_last }) => {
    const neverLast = new Set(never_last);
    return ({ raw, sentences }) => {
      const text = raw.trimEnd();
      const open = unbalanced(raw);
      if (open) return open;
      if (full_stop && text !== "" && !finished.test(text.slice(-20)))
        return `ends without a full stop: ${quoteExcerpt(lastPart(text))}`;
      for (const sentence of sentences) {
        const last = /(?<![\p{L}\p{N}'’-])\p{L}+(?=[^\p{L}\p{N}]{0,8}$)/u.exec(sentence.slice(-40))?.[0];
        if (last !== undefined && neverLast.has(last))
          return `a sentence ends in "${last}": ${quoteExcerpt(lastPart(sentence))}`;
      }
      return undefined;
    };
  },
);

function lastPart(text: string): string {
  return text.length <= 60 ? text : `...${text.slice(-60).replace(/^\S*\s/, "")}`;
}

/** Unmatched brackets and quotation marks. */
function unbalanced(raw: string): string | undefined {
  // Ignore list numbers, "1)", and inches, 12".
  const text = raw.replace(/(?<![\p{L}\p{N}])[\p{L}\p{N}]\)/gu, " ").replace(/(?<=\d)"/g, " ");
  // Languages differ in which mark opens and which closes, so only count them.
  for (const marks of [/["“”„‟]/gu, /[«»]/gu]) {
    const found = text.match(marks) ?? [];
    if (found.length % 2 === 1) return `has a ${found.at(-1)} without its other half`;
  }
  const open: string[] = [];
  for (const character of text) {
    if (opening.has(character)) open.push(character);
    const expected = closing[character];
    if (expected && open.pop() !== expected) return `has a ${character} without its other half`;
  }
  return open.length > 0 ? `has a ${open.at(-1)} without its other half` : undefined;
}
