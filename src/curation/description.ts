/** One picture's description, asked for as the paper does: a description, and more of it where it is short. */
import { createHash } from "node:crypto";
import type { Decoding, EndReason, Engine, Question } from "../chat/engine/engine.ts";
import type { VersionDetails } from "./entry.ts";

/** What the paper asks the first stage's model; its template puts the picture before it. */
const instruction = "Describe this image in detail. Give as many details as possible. Say everything you see.";
/** What the paper says after a short answer. */
const goOn = "Continue";
/** Answers of so many tokens or fewer are short. */
const shortAnswer = 80;

/** How a model is asked: with the paper's words in the model's template, or with the prompt that it was trained to describe with. */
export const askings = ["paper", "describe"] as const;
export type Asking = (typeof askings)[number];

export interface DescriptionOptions {
  readonly asking: Asking;
  /** How often the model is asked to go on while its text is short; by default once where it is asked as in the paper. */
  readonly continues?: number;
  /** The seed is mixed with the picture's bytes: each picture draws its own text, the same one in every run. */
  readonly decoding?: Decoding;
  /** Longest text, in tokens, after which the model is asked to go on; 80 by default. */
  readonly shortAnswer?: number;
}

/** What a continuation brought: `empty` and `repeated` ones are left out of the text. */
export type Continuation = "added" | "empty" | "repeated";

export interface Description {
  readonly text: string;
  readonly prompt: string;
  readonly details: VersionDetails & {
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly continuations: readonly Continuation[];
    /** How the last answer ended. */
    readonly end: EndReason;
  };
}

interface Answer {
  readonly text: string;
  readonly promptTokens: number;
  readonly tokens: number;
  readonly end: EndReason;
}

/** @param sha256 of the picture. @throws as `Engine.answer` */
export async function describePicture(
  engine: Engine,
  picture: Uint8Array,
  sha256: string,
  {
    asking,
    continues = asking === "paper" ? 1 : 0,
    decoding = {},
    shortAnswer: short = shortAnswer,
  }: DescriptionOptions,
  signal?: AbortSignal,
): Promise<Description> {
  const started = performance.now();
  const ask = (turns: Question["turns"], round: number) => {
    const seed = seedOf(decoding.seed ?? 0, sha256, round);
    // The paper's prompt has nothing before the picture.
    return answerOf(engine, { ...decoding, seed, system: "", turns, pictures: [picture] }, signal);
  };
  const asked = asking === "paper" ? instruction : "";
  const first = { role: "user", text: asked, images: 1 } as const;
  let answer = await ask(asking === "paper" ? [first] : "describe", 0);
  let { text, promptTokens, tokens: completionTokens } = answer;
  const continuations: Continuation[] = [];
  while (completionTokens <= short && continuations.length < continues) {
    const turns = [first, { role: "assistant", text }, { role: "user", text: goOn }] as const;
    answer = await ask(turns, continuations.length + 1);
    promptTokens += answer.promptTokens;
    completionTokens += answer.tokens;
    const joined = join(text, answer.text);
    continuations.push(joined.what);
    text = joined.text;
    if (joined.what !== "added") break;
  }
  return {
    text,
    prompt: asked || asking,
    details: {
      promptTokens,
      completionTokens,
      duration: Math.round(performance.now() - started),
      continuations,
      end: answer.end,
      decoding,
    },
  };
}

/** A text and what the model said when it was asked to go on, which may begin with all of it once more. */
export function join(text: string, more: string): { readonly text: string; readonly what: Continuation } {
  if (more === "") return { text, what: "empty" };
  if (plain(text).endsWith(plain(more))) return { text, what: "repeated" };
  if (more.startsWith(text)) return { text: more, what: "added" };
  const between = /^[.,;:!?)]/.test(more) ? "" : " ";
  return { text: `${text}${between}${more}`, what: "added" };
}

/** What is left of a text where blanks and capitals do not count. */
function plain(text: string): string {
  return text.toLowerCase().replace(/\s+/g, " ");
}

async function answerOf(engine: Engine, question: Question, signal?: AbortSignal): Promise<Answer> {
  let [text, promptTokens, tokens] = ["", 0, 0];
  let end: EndReason = "stop";
  for await (const event of engine.answer(question, signal)) {
    if (event.kind === "begin") promptTokens = event.promptTokens;
    else if (event.kind === "text") text += event.text;
    else [tokens, end] = [event.tokens, event.reason];
  }
  // A model can say the character 0, at which a database would end the text.
  return { text: text.replaceAll("\0", "").trim(), promptTokens, tokens, end };
}

/** The same seed for the same picture, whatever was described before it. */
function seedOf(seed: number, sha256: string, round: number): number {
  return createHash("sha256").update(`${seed} ${sha256} ${round}`).digest().readUInt32LE();
}
