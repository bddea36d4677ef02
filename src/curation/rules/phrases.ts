/** Known phrases: of a model that apologises for itself, or that speaks of itself. */
import { z } from "zod";
import { wordsOf } from "./judged-text.ts";
import { rule } from "./rule.ts";

/** Texts that contain one of the phrases; capitals, punctuation and the form of apostrophes do not matter. */
export const phrases = rule(
  z.strictObject({ phrases: z.array(z.string().regex(/\p{L}/u, "needs a word")) }),
  (options) => {
    const wanted = options.phrases.map((phrase) => ({ phrase, words: ` ${wordsOf(phrase).join(" ")} ` }));
    return ({ words }) => {
      const text = ` ${words.join(" ")} `;
      const found = wanted.find((phrase) => text.includes(phrase.words));
      return found && `says "${found.phrase}"`;
    };
  },
);
