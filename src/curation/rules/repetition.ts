/** What a model does that has lost its thread: it says the same again and again. */
import { z } from "zod";
import { quoted, wordsOf } from "./judged-text.ts";
import { rule } from "./rule.ts";

/** The same sentence, whatever its capitals and punctuation. Sentences of one or two words may return. */
export const repeatedSentences = rule(
  z.strictObject({ max_times: z.number().int().positive() }),
  ({ max_times }) =>
    ({ sentences }) => {
      const times = new Map<string, { count: number; first: string }>();
      for (const sentence of sentences) {
        const words = wordsOf(sentence);
        if (words.length < 3) continue;
        const key = words.join(" ");
        const known = times.get(key);
        if (known) known.count++;
        else times.set(key, { count: 1, first: sentence });
      }
      let most = { count: 0, first: "" };
      for (const sentence of times.values()) if (sentence.count > most.count) most = sentence;
      return most.count > max_times ? `says ${most.count} times ${quoted(most.first)}` : undefined;
    },
);

/** The share of the words that lie in runs of `words` words which occurred before. */
export const repeatedRuns = rule(
  z.strictObject({ words: z.number().int().min(2).max(50), max_share: z.number().min(0).max(1) }),
  ({ words: length, max_share }) =>
    ({ words }) => {
      const seen = new Map<string, number>();
      let repeated = 0;
      /** The place after the last word that was counted, so that a word in two runs counts once. */
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
      return `${Math.round(100 * share)}% of it was said before, for example ${most.times} times ${quoted(most.run)}`;
    },
);

/** The same word several times in a row. */
export const stuttering = rule(
  z.strictObject({ max_times: z.number().int().positive() }),
  ({ max_times }) =>
    ({ words }) => {
      for (let start = 0, at = 1; at <= words.length; at++) {
        if (words[at] === words[start]) continue;
        if (at - start > max_times) return `${quoted(words[start] ?? "")} ${at - start} times in a row`;
        start = at;
      }
      return undefined;
    },
);
