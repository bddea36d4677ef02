/** Checks whether an answer of the polishing model is a polished text, and strips what is certainly not part of it. */
import type { ChatAnswer } from "./service-error.ts";

export type AnswerCheck =
  /** @property rules names of what was taken off */
  | { readonly text: string; readonly rules: readonly string[] }
  /** @property refused why the answer is not taken */
  | { readonly rejected: Refusal; readonly message: string };

/** Why an answer is rejected. */
type Refusal = "empty" | "cut off" | "filtered" | "refusal" | "instruction";

/** @param source the text that was to be polished, @param prompt what was asked */
export function checkAnswer(answer: ChatAnswer, source: string, prompt: string): AnswerCheck {
  const { finishReason, refusal } = answer;
  if (refusal) return { rejected: "refusal", message: `The model refuses: ${refusal}` };
  if (finishReason === "content_filter") return { rejected: "filtered", message: "A filter of the service stopped it" };
  if (finishReason === "length") return { rejected: "cut off", message: "The answer was cut off; see --max-tokens" };
  const { text, rules } = stripExtras(answer.text, source);
  if (text === "") return { rejected: "empty", message: "The answer is empty" };
  if (saysCorrect.test(text)) return { text: source.trim(), rules: [...rules, "already correct"] };
  const repeated = sentences(prompt).find(
    (sentence) => plain(text).includes(sentence) && !plain(source).includes(sentence),
  );
  if (repeated) return { rejected: "instruction", message: `The answer repeats the instruction: ${excerpt(text)}` };
  if (refuses.test(text) && !refuses.test(source))
    return { rejected: "refusal", message: `The model refuses: ${excerpt(text)}` };
  return { text, rules };
}

/** A rule that takes something off an answer; what it leaves, or undefined where it has nothing to say. */
type Rule = (answer: string, source: string) => string | undefined;

/** Only what is certain: what a text may well have had stays, and the person who reviews it sees it. */
const rules: Readonly<Record<string, Rule>> = {
  /** What a model thought aloud. */
  thoughts: (answer) => textAfter(/^<think(?:ing)?>[\s\S]*?<\/think(?:ing)?>/i, answer),
  /** A fence around all of it, which no description has. */
  fence: (answer, source) =>
    source.startsWith("```") ? undefined : /^```[a-z]*\n((?:(?!```)[\s\S])*)\n```$/i.exec(answer)?.[1],
  /** "Here is the corrected paragraph:", also after "Sure!". */
  announcement: (answer, source) => (announces.test(source) ? undefined : textAfter(announces, answer)),
  /** "Return directly the input paragraph:", which the instruction was understood to say. */
  literal: (answer, source) => (literal.test(source) ? undefined : textAfter(literal, answer)),
  /** "The paragraph is already correct.", where the paragraph itself follows. */
  verdict: (answer, source) => {
    const rest = textAfter(correctFirst, answer);
    return rest !== undefined && plain(rest) === plain(source) ? rest : undefined;
  },
  /** Quotes around all of it, and nowhere in it. */
  quotes: (answer, source) => (quoted(source) === undefined ? quoted(answer) : undefined),
};

/** Applies the rules until none has anything to say: what one leaves may be another's. */
function stripExtras(answer: string, source: string): { readonly text: string; readonly rules: readonly string[] } {
  const applied: string[] = [];
  let text = answer.trim();
  for (let changed = true; changed; ) {
    changed = false;
    for (const [name, rule] of Object.entries(rules)) {
      const rest = rule(text, source.trim())?.trim();
      if (rest === undefined || rest === text) continue;
      text = rest;
      applied.push(name);
      changed = true;
    }
  }
  return { text, rules: applied };
}

const made =
  "(?:corrected|revised|fixed|polished|edited|rewritten|improved|cleaned(?:[ -]up)?|final|updated|proofread)";
const thing = "(?:paragraph|text|version|description|caption)";
const opening = "(?:(?:sure|certainly|of course|okay|ok)[,.!]*\\s+)?";
const announces = new RegExp(
  `^${opening}(?:(?:here(?: is|'s|’s)|below is|this is|the following is)\\s+)?(?:(?:the|a|your|my)\\s+)?${made}(?:\\s+and\\s+${made})?` +
    `(?:\\s+${thing}(?:\\s+of\\s+the\\s+(?:\\w+\\s+)?${thing})?)?(?:\\s+is)?\\s*:`,
  "i",
);
const literal = /^(?:return(?:ing|ed)?\s+(?:directly\s+)?)?(?:the\s+)?(?:input|given|original)\s+paragraph\s*:/i;

const correct =
  "(?:the (?:given |input |provided |original )*(?:paragraph|text) (?:is|was) (?:already )?(?:correct|error[- ]free)(?: as (?:it )?is)?(?:,? without explanation)?" +
  "|(?:there (?:are|were) )?no (?:changes|corrections|errors)(?: (?:are|were))?(?: needed| required| necessary| found| to (?:fix|correct|make))?(?: in the (?:given |input )?(?:paragraph|text))?)";
const saysCorrect = new RegExp(`^\\(?${correct}[.!]?\\)?$`, "i");
const correctFirst = new RegExp(`^${correct}[.!:]`, "i");

/** How models begin that do not work on a text; many descriptions say sorry of themselves, which rules find later. */
const refuses = new RegExp(
  "^(?:(?:i'm|i’m|i am) (?:very |so )?sorry|sorry|i apologi[sz]e|unfortunately)?[,.]?\\s*(?:but )?(?:" +
    "(?:i|we) (?:can(?:'|’)?t|can ?not|am (?:not able|unable) to|(?:'|’)m unable to|won(?:'|’)t|will not|must decline)\\s+(?:to )?" +
    "(?:assist|help|fulfil+|comply|process|provide|rewrite|fix|correct|edit|do|complete|work|continue|respond|answer)" +
    "|as an ai\\b|please (?:provide|share|give me|send|paste)\\b|(?:it (?:seems|looks like|appears)|there is)[^.]{0,30}\\b(?:no paragraph|not provided|haven(?:'|’)t provided|didn(?:'|’)t provide))",
  "i",
);

const quotes: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["“", "”"],
  ["«", "»"],
  ["'", "'"],
  ["‘", "’"],
];

function quoted(text: string): string | undefined {
  for (const [open, close] of quotes) {
    if (text.length < 2 || !text.startsWith(open) || !text.endsWith(close)) continue;
    const inner = text.slice(1, -1);
    // `"A" and "B"` is not in quotes; an apostrophe is not told from a quote.
    return inner.includes(open) || inner.includes(close) ? undefined : inner;
  }
  return undefined;
}

function textAfter(beginning: RegExp, text: string): string | undefined {
  const [found] = beginning.exec(text) ?? [];
  return found === undefined ? undefined : text.slice(found.length);
}

/** Of an instruction, those that are long enough to be told from what a description may say. */
function sentences(prompt: string): string[] {
  return prompt
    .split(/[.!?:\n]+/)
    .map(plain)
    .filter((sentence) => sentence.split(" ").length >= 4);
}

/** Words only. */
function plain(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 80)}...` : line;
}
