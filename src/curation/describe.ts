/** The first step of a project: a model describes every image that has no text yet, and continues short descriptions. */
import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Engine, GenerationOptions, GenerationRequest } from "../engine/engine.ts";
import { EngineLostError, RequestError } from "../errors.ts";
import type { FinishReason } from "../generation/generate.ts";
import { imageInMemory } from "../images/decode.ts";
import { type ProjectImage, StaleVersionError, type VersionDetails } from "./entry.ts";
import { ImageLostError, imageBytes } from "./images.ts";
import type { CurationStore } from "./store.ts";

// One image's description, asked for as the paper does: a description, and more of it where it is short.

/** What the paper asks the first stage's model; its template puts the image before it. */
const instruction = "Describe this image in detail. Give as many details as possible. Say everything you see.";
/** What the paper says after a short answer. */
const goOn = "Continue";
/** Answers of so many tokens or fewer are short. */
const shortAnswer = 80;

/** `paper`: the paper's prompt in the model's template; `describe`: the prompt that the model was trained with. */
export const promptStyles = ["paper", "describe"] as const;
export type PromptStyle = (typeof promptStyles)[number];

interface DescriptionOptions {
  readonly promptStyle: PromptStyle;
  /** How often the model is asked to go on while its text is short; by default once where it is asked as in the paper. */
  readonly continues?: number;
  /** The seed is mixed with the image's bytes: each image draws its own text, the same one in every run. */
  readonly decoding?: GenerationOptions;
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
    readonly end: FinishReason;
  };
}

interface Answer {
  readonly text: string;
  readonly promptTokens: number;
  readonly tokens: number;
  readonly end: FinishReason;
}

/** @param sha256 of the image. @throws as `Engine.answer` */
async function describeImage(
  engine: Engine,
  image: Uint8Array,
  sha256: string,
  {
    promptStyle,
    continues = promptStyle === "paper" ? 1 : 0,
    decoding = {},
    shortAnswer: short = shortAnswer,
  }: DescriptionOptions,
  signal?: AbortSignal,
): Promise<Description> {
  const started = performance.now();
  const ask = (turns: GenerationRequest["turns"], round: number) => {
    const seed = seedOf(decoding.seed ?? 0, sha256, round);
    // The paper's prompt has nothing before the image.
    return answerOf(engine, { ...decoding, seed, system: "", turns, images: [image] }, signal);
  };
  const asked = promptStyle === "paper" ? instruction : "";
  const first = { role: "user", text: asked, images: 1 } as const;
  let answer = await ask(promptStyle === "paper" ? [first] : "describe", 0);
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
    prompt: asked || promptStyle,
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

async function answerOf(engine: Engine, question: GenerationRequest, signal?: AbortSignal): Promise<Answer> {
  let [text, promptTokens, tokens] = ["", 0, 0];
  let end: FinishReason = "stop";
  for await (const event of engine.generate(question, signal)) {
    if (event.kind === "begin") promptTokens = event.promptTokens;
    else if (event.kind === "text") text += event.text;
    else [tokens, end] = [event.tokens, event.reason];
  }
  // A model can say the character 0, at which a database would end the text.
  return { text: text.replaceAll("\0", "").trim(), promptTokens, tokens, end };
}

/** The same seed for the same image, whatever was described before it. */
function seedOf(seed: number, sha256: string, round: number): number {
  return createHash("sha256").update(`${seed} ${sha256} ${round}`).digest().readUInt32LE();
}

/** What failures of this step are noted as. */
export const describeStep = "describe";
/** Images that are described at once, which the engine batches as far as its memory allows. */
const parallelByDefault = 16;
/** So often an image is tried. */
export const triesByDefault = 3;

export interface DescribeOptions extends DescriptionOptions {
  readonly parallel?: number;
  /** Images that failed so often are not tried again. */
  readonly tries?: number;
  /** Images of the project that have a text or were tried now, of all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly onFailure?: (image: ProjectImage, message: string) => void;
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

/** Images that wait for a description. */
export function undescribed(
  store: CurationStore,
  tries = triesByDefault,
): { readonly images: readonly ProjectImage[]; readonly givenUp: number; readonly total: number } {
  const failures = store.failures(describeStep);
  const entries = store.entries();
  const empty = entries.filter(({ current }) => !current).map(({ image }) => image);
  const images = empty.filter(({ id }) => (failures.get(id)?.times ?? 0) < tries);
  return { images, givenUp: empty.length - images.length, total: entries.length };
}

/**
 * Describes what has no text yet, several images at a time. Each text is in the project as soon as it is there: whenever this is
 * stopped, the next call goes on with the rest.
 *
 * @throws the signal's reason; Error if the engine cannot go on
 */
export async function describeImages(
  store: CurationStore,
  engine: Engine,
  options: DescribeOptions,
  signal?: AbortSignal,
): Promise<DescribeReport> {
  const { parallel = parallelByDefault, tries, onProgress, onFailure } = options;
  const { images, givenUp, total } = undescribed(store, tries);
  const report = { described: 0, continued: 0, longer: 0, failed: 0, givenUp, promptTokens: 0, completionTokens: 0 };
  let done = total - images.length;
  // What goes wrong with one of those that are under way, and is not that image's fault, ends all of them.
  const failing = new AbortController();
  const stop = AbortSignal.any([failing.signal, ...(signal ? [signal] : [])]);
  // Each image listens to it, which is no leak.
  setMaxListeners(parallel + 1, stop);

  async function describe(image: ProjectImage): Promise<void> {
    let described: Description;
    try {
      described = await describeRetrying(engine, image, options, stop);
    } catch (error) {
      const message = stop.aborted ? undefined : faultOf(image, error);
      if (message === undefined) throw error;
      store.addFailure(image.id, describeStep, message);
      // An engine that breaks down again and again would do so for all images.
      if (error instanceof EngineLostError) throw error;
      report.failed++;
      onFailure?.(image, message);
      return;
    }
    if (!add(store, image, engine.model.name, described)) return;
    const { promptTokens, completionTokens, continuations } = described.details;
    report.described++;
    report.promptTokens += promptTokens;
    report.completionTokens += completionTokens;
    if (continuations.length > 0) report.continued++;
    if (continuations.includes("added")) report.longer++;
  }

  const queue = images.values();
  async function work(): Promise<void> {
    for (const image of queue) {
      stop.throwIfAborted();
      await describe(image);
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

/** Tries once more where the engine broke down, which another image may have been the reason for. */
async function describeRetrying(
  engine: Engine,
  image: ProjectImage,
  options: DescriptionOptions,
  signal: AbortSignal,
): Promise<Description> {
  const bytes = await imageBytes(image);
  const describe = () => describeImage(engine, bytes, image.sha256, options, signal);
  return describe().catch((error) => {
    if (error instanceof EngineLostError && !signal.aborted) return describe();
    throw error;
  });
}

/** What may be wrong with the image; undefined if something else certainly is. */
function faultOf({ name }: ProjectImage, error: unknown): string | undefined {
  if (error instanceof ImageLostError || error instanceof EngineLostError) return error.message;
  if (!(error instanceof RequestError) || error.code !== "invalid_image") return undefined;
  return error.message.replace(imageInMemory, () => name);
}

/** Whether it was added; another process may have described the image meanwhile. */
function add(
  store: CurationStore,
  { id }: ProjectImage,
  author: string,
  { text, prompt, details }: Description,
): boolean {
  try {
    store.addVersion({ image: id, kind: "described", text, author, prompt, details });
    return true;
  } catch (error) {
    if (error instanceof StaleVersionError) return false;
    throw error;
  }
}
