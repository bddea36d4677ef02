/** Checks whether an answer of the polishing model is a polished text, and strips what is certainly not part of it. */
import type { ChatAnswer } from "./service-error.ts";

/** The polished text with the names of the rules that stripped something, or why the answer is rejected. */
export type AnswerCheck =
  | { readonly text: string; readonly rules: readonly string[] }
  | { readonly rejected: Refusal; readonly message: string };

/** Why an answer is rejected. */
type Refusal = "empty" | "cut off" | "filtered" | "refusal" | "instruction";

/** Checks an answer. @param source the text to polish. @param prompt the instruction */
export function checkAnswer(answer: ChatAnswer, source: string, prompt: string): AnswerCheck {
  const { finishReason, refusal } = answer;
  if (refusal) return { rejected: "refusal", message: `The model refuses: ${refusal}` };
  if (finishReason === "content_filter")
    return { rejected: "filtered", message: "The service's content filter stopped the answer" };
  if (finishReason === "length")
    return { rejected: "cut off", message: "The answer reached its maximum length; raise --max-tokens" };
  const { text, rules } = stripExtras(answer.text, source);
  if (text === "") return { rejected: "empty", message: "The answer is empty" };
  if (alreadyCorrect.test(text)) return { text: source.trim(), rules: [...rules, "already correct"] };
  const repeated = sentences(prompt).find(
    (sentence) => normalize(text).includes(sentence) && !normalize(source).includes(sentence),
  );
  if (repeated) return { rejected: "instruction", message: `The answer repeats the instruction: ${excerpt(text)}` };
  if (refuses.test(text) && !refuses.test(source))
    return { rejected: "refusal", message: `The model refuses: ${excerpt(text)}` };
  return { text, rules };
}

/** Strips something from an answer. @returns the rest, or undefined if the rule does not apply */
type Rule = (answer: string, source: string) => string | undefined;

/** Only what is certainly not part of the text is stripped; doubtful text stays for the reviewer. */
const rules: Readonly<Record<string, Rule>> = {
  /** Reasoning. */
  thoughts: (answer) => textAfter(/^<think(?:ing)?>[\s\S]*?<\/think(?:ing)?>/i, answer),
  /** A code fence around the whole answer. */
  fence: (answer, source) =>
    source.startsWith("```") ? undefined : /^```[a-z]*\n((?:(?!```)[\s\S])*)\n```$/i.exec(answer)?.[1],
  /** "Here is the corrected paragraph:", also after "Sure!". */
  announcement: (answer, source) => (announces.test(source) ? undefined : textAfter(announces, answer)),
  /** "Return directly the input paragraph:", a misreading of the instruction. */
  literal: (answer, source) => (literal.test(source) ? undefined : textAfter(literal, answer)),
  /** "The paragraph is already correct.", followed by the paragraph. */
  verdict: (answer, source) => {
    const rest = textAfter(correctFirst, answer);
    return rest !== undefined && normalize(rest) === normalize(source) ? rest : undefined;
  },
  /** Quotes around the whole answer, and none inside. */
  quotes: (answer, source) => (quoted(source) === undefined ? quoted(answer) : undefined),
};

/** Applies the rules repeatedly until none applies, since they can be nested. */
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
const alreadyCorrect = new RegExp(`^\\(?${correct}[.!]?\\)?$`, "i");
const correctFirst = new RegExp(`^${correct}[.!:]`, "i");

/** Openings of refusals. An apology alone is none: many descriptions contain one, which the filter rules catch later. */
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
    // `"A" and "B"` is not quoted as a whole; apostrophes count as quotes.
    return inner.includes(open) || inner.includes(close) ? undefined : inner;
  }
  return undefined;
}

function textAfter(beginning: RegExp, text: string): string | undefined {
  const [found] = beginning.exec(text) ?? [];
  return found === undefined ? undefined : text.slice(found.length);
}

/** Sentences of an instruction that are too long to occur in a description by chance. */
function sentences(prompt: string): string[] {
  return prompt
    .split(/[.!?:\n]+/)
    .map(normalize)
    .filter((sentence) => sentence.split(" ").length >= 4);
}

/** Lowercase words, without punctuation. */
function normalize(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, " ");
  return line.length > 80 ? `${line.slice(0, 80)}...` : line;
}
