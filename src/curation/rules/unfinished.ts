/** Texts that stop in the middle. */
import { z } from "zod";
import { quoted } from "./judged-text.ts";
import { rule } from "./rule.ts";

/** A full stop of any language, and what may close after it. A text that trails off in "..." is not finished. */
const finished = /(?<!\.\s?\.)[.!?。！？؟।។။]\s?["'”’»)\]」』）]{0,3}$/u;

const closing: Readonly<Record<string, string>> = { ")": "(", "]": "[", "}": "{", "」": "「", "』": "『", "）": "（" };
const opening = new Set(Object.values(closing));

export const unfinished = rule(
  z.strictObject({
    /** Whether a text must end in one. */
    full_stop: z.boolean(),
    /** No sentence ends in one of these words. */
    never_last: z.array(z.string().min(1)),
  }),
  ({ full_stop, never_last }) => {
    const neverLast = new Set(never_last);
    return ({ raw, sentences }) => {
      const text = raw.trimEnd();
      const open = unbalanced(raw);
      if (open) return open;
      if (full_stop && text !== "" && !finished.test(text.slice(-20)))
        return `ends without a full stop: ${quoted(lastPart(text))}`;
      for (const sentence of sentences) {
        const last = /(?<![\p{L}\p{N}'’-])\p{L}+(?=[^\p{L}\p{N}]{0,8}$)/u.exec(sentence.slice(-40))?.[0];
        if (last !== undefined && neverLast.has(last))
          return `a sentence ends in "${last}": ${quoted(lastPart(sentence))}`;
      }
      return undefined;
    };
  },
);

function lastPart(text: string): string {
  return text.length <= 60 ? text : `...${text.slice(-60).replace(/^\S*\s/, "")}`;
}

/** Brackets and quotation marks that miss their other half. */
function unbalanced(raw: string): string | undefined {
  // Numbers of a list, "1)", open nothing, and neither do inches, 12".
  const text = raw.replace(/(?<![\p{L}\p{N}])[\p{L}\p{N}]\)/gu, " ").replace(/(?<=\d)"/g, " ");
  // Languages differ in which mark opens and which closes, but there are always two.
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
