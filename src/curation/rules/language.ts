/** Texts, or sentences of them, in another language. */
import { z } from "zod";
import { quoted, wordsOf } from "./judged-text.ts";
import { rule } from "./rule.ts";

const share = z.number().min(0).max(1);
const nameOf = new Intl.DisplayNames(["en"], { type: "language" });

/** Scripts that are several of Unicode's. */
const joined: Readonly<Record<string, readonly string[]>> = {
  Hans: ["Han"],
  Hant: ["Han"],
  Jpan: ["Han", "Hira", "Kana"],
  Kore: ["Hang", "Han"],
};

/** The share of letters that the language is not written with. */
export const foreignScript = rule(z.strictObject({ max_share: share }), ({ max_share }, language) => {
  const script = new Intl.Locale(language).maximize().script ?? "Latn";
  const own = new RegExp(
    `[${(joined[script] ?? [script]).map((name) => `\\p{scx=${name}}`).join("")}\\p{scx=Zyyy}]`,
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
    return `${count} of ${letters} letters are not ${nameOf.of(language)}: ${quoted(foreign, 20)}`;
  };
});

/**
 * Sentences that look more like another language by at least `margin`, as a detector of 60 languages sees it (letters in a row; 0 is
 * nothing, 1 is certain). Short ones say too little.
 */
export const foreignLanguage = rule(
  z.strictObject({ margin: share, min_words: z.number().int().positive() }),
  async ({ margin, min_words }, language) => {
    // Its table takes a while to load, and only this rule needs it.
    const { eld } = await import("eld/small");
    const known = Object.values(eld.info().Languages);
    if (!known.includes(language)) {
      throw new Error(`the language ${language} is not one that can be told from others (${known.join(", ")})`);
    }
    return ({ sentences }) => {
      for (const sentence of sentences) {
        if (wordsOf(sentence).length < min_words) continue;
        const found = eld.detect(sentence);
        if (found.language === "" || found.language === language) continue;
        const scores = found.getScores();
        if ((scores[found.language] ?? 0) - (scores[language] ?? 0) < margin) continue;
        return `is ${nameOf.of(found.language)}: ${quoted(sentence)}`;
      }
      return undefined;
    };
  },
);
