/** The first step of a project: the first stage's model describes every picture that has no text yet. */
import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { type Decoding, type Engine, EngineLostError, type Question, QuestionError } from "../engine/engine.ts";
import type { EndReason } from "../generation/generate.ts";
import { pictureInMemory } from "../images/decode.ts";
import { type Picture, StaleVersionError, type VersionDetails } from "./entry.ts";
import { PictureLostError, pictureBytes } from "./images.ts";
import type { CurationStore } from "./store.ts";

// One picture's description, asked for as the paper does: a description, and more of it where it is short.

/** What the paper asks the first stage's model; its template puts the picture before it. */
const instruction = "Describe this image in detail. Give as many details as possible. Say everything you see.";
/** What the paper says after a short answer. */
const goOn = "Continue";
/** Answers of so many tokens or fewer are short. */
const shortAnswer = 80;

/** How a model is asked: with the paper's words in the model's template, or with the prompt that it was trained to describe with. */
export const askings = ["paper", "describe"] as const;
export type Asking = (typeof askings)[number];

interface DescriptionOptions {
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

interface Description {
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
async function describePicture(
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

/** What failures of this step are noted as. */
export const describeStep = "describe";
/** Pictures that are described at once, which the engine batches as far as its memory allows. */
const parallelByDefault = 16;
/** So often a picture is tried. */
export const triesByDefault = 3;

export interface DescribeOptions extends DescriptionOptions {
  readonly parallel?: number;
  /** Pictures that failed so often are not tried again. */
  readonly tries?: number;
  /** Pictures of the project that have a text or were tried now, of all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly onFailure?: (picture: Picture, message: string) => void;
}

export interface DescribeReport {
  readonly described: number;
  /** Short ones of them, which the model was asked to go on with, and those that became longer by it. */
  readonly continued: number;
  readonly longer: number;
  /** Tried in vain; the next run tries them again. */
  readonly failed: number;
  /** Failed too often, and were not tried. */
  readonly givenUp: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Pictures that wait for a description. */
export function undescribed(
  store: CurationStore,
  tries = triesByDefault,
): { readonly pictures: readonly Picture[]; readonly givenUp: number; readonly total: number } {
  const failures = store.failures(describeStep);
  const entries = store.entries();
  const empty = entries.filter(({ current }) => !current).map(({ picture }) => picture);
  const pictures = empty.filter(({ id }) => (failures.get(id)?.times ?? 0) < tries);
  return { pictures, givenUp: empty.length - pictures.length, total: entries.length };
}

/**
 * Describes what has no text yet, several pictures at a time. Each text is in the project as soon as it is there: whenever this is
 * stopped, the next call goes on with the rest.
 *
 * @throws the signal's reason; Error if the engine cannot go on
 */
export async function describePictures(
  store: CurationStore,
  engine: Engine,
  options: DescribeOptions,
  signal?: AbortSignal,
): Promise<DescribeReport> {
  const { parallel = parallelByDefault, tries, onProgress, onFailure } = options;
  const { pictures, givenUp, total } = undescribed(store, tries);
  const report = { described: 0, continued: 0, longer: 0, failed: 0, givenUp, promptTokens: 0, completionTokens: 0 };
  let done = total - pictures.length;
  // What goes wrong with one of those that are under way, and is not that picture's fault, ends all of them.
  const failing = new AbortController();
  const stop = AbortSignal.any([failing.signal, ...(signal ? [signal] : [])]);
  // Each picture listens to it, which is no leak.
  setMaxListeners(parallel + 1, stop);

  async function describe(picture: Picture): Promise<void> {
    let described: Description;
    try {
      described = await describeRetrying(engine, picture, options, stop);
    } catch (error) {
      const message = stop.aborted ? undefined : faultOf(picture, error);
      if (message === undefined) throw error;
      store.addFailure(picture.id, describeStep, message);
      // An engine that breaks down again and again would do so for all pictures.
      if (error instanceof EngineLostError) throw error;
      report.failed++;
      onFailure?.(picture, message);
      return;
    }
    if (!add(store, picture, engine.model.name, described)) return;
    const { promptTokens, completionTokens, continuations } = described.details;
    report.described++;
    report.promptTokens += promptTokens;
    report.completionTokens += completionTokens;
    if (continuations.length > 0) report.continued++;
    if (continuations.includes("added")) report.longer++;
  }

  const queue = pictures.values();
  async function work(): Promise<void> {
    for (const picture of queue) {
      stop.throwIfAborted();
      await describe(picture);
      onProgress?.(++done, total);
    }
  }

  onProgress?.(done, total);
  const workers = Array.from({ length: parallel }, () =>
    work().catch((error) => {
      failing.abort(error);
    }),
  );
  await Promise.all(workers);
  stop.throwIfAborted();
  return report;
}

/** Tries once more where the engine broke down, which another picture may have been the reason for. */
async function describeRetrying(
  engine: Engine,
  picture: Picture,
  options: DescriptionOptions,
  signal: AbortSignal,
): Promise<Description> {
  const bytes = await pictureBytes(picture);
  const describe = () => describePicture(engine, bytes, picture.sha256, options, signal);
  return describe().catch((error) => {
    if (error instanceof EngineLostError && !signal.aborted) return describe();
    throw error;
  });
}

/** What may be wrong with the picture; undefined if something else certainly is. */
function faultOf({ name }: Picture, error: unknown): string | undefined {
  if (error instanceof PictureLostError || error instanceof EngineLostError) return error.message;
  if (!(error instanceof QuestionError) || error.code !== "picture") return undefined;
  return error.message.replace(pictureInMemory, () => name);
}

/** Whether it was added; another process may have described the picture meanwhile. */
function add(store: CurationStore, { id }: Picture, author: string, { text, prompt, details }: Description): boolean {
  try {
    store.addVersion({ picture: id, kind: "described", text, author, prompt, details });
    return true;
  } catch (error) {
    if (error instanceof StaleVersionError) return false;
    throw error;
  }
}
