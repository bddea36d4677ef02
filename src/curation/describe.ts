/** The first step of a project: a model describes every image without a text, and continues short descriptions. */
import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Engine, GenerationOptions, GenerationRequest } from "../engine/engine.ts";
import { EngineLostError, RequestError } from "../errors.ts";
import type { FinishReason } from "../generation/generate.ts";
import { imageInMemory } from "../images/decode.ts";
import { type ProjectImage, StaleVersionError, type VersionDetails } from "./entry.ts";
import { ImageLostError, imageBytes } from "./images.ts";
import type { CurationStore } from "./store.ts";

/** The paper's prompt for the first stage's model; the template puts the image before it. */
const instruction = "Describe this image in detail. Give as many details as possible. Say everything you see.";
/** The paper's prompt after a short answer. */
const continuePrompt = "Continue";
/** Answers of at most this many tokens are short. */
const defaultShortAnswer = 80;

/** `paper`: the paper's prompt in the model's template; `describe`: the prompt that the model was trained with. */
export const promptStyles = ["paper", "describe"] as const;
export type PromptStyle = (typeof promptStyles)[number];

interface DescriptionOptions {
  readonly promptStyle: PromptStyle;
  /** How many times a short description is continued. @default 1 with `promptStyle: "paper"`, else 0 */
  readonly continues?: number;
  /** The seed is combined with the image's SHA-256, so each image gets its own seed, the same in every run. */
  readonly decoding?: GenerationOptions;
  /** Descriptions of at most this many tokens are continued. @default 80 */
  readonly shortAnswer?: number;
}

/** Outcome of a continuation; `empty` and `repeated` ones are not appended. */
export type Continuation = "added" | "empty" | "repeated";

interface Description {
  readonly text: string;
  readonly prompt: string;
  readonly details: VersionDetails & {
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly continuations: readonly Continuation[];
    /** Finish reason of the last answer. */
    readonly end: FinishReason;
  };
}

interface Answer {
  readonly text: string;
  readonly promptTokens: number;
  readonly tokens: number;
  readonly end: FinishReason;
}

/** Generates a description. @param sha256 of the image. @throws as `Engine.generate` */
async function describeImage(
  engine: Engine,
  image: Uint8Array,
  sha256: string,
  {
    promptStyle,
    continues = promptStyle === "paper" ? 1 : 0,
    decoding = {},
    shortAnswer = defaultShortAnswer,
  }: DescriptionOptions,
  signal?: AbortSignal,
): Promise<Description> {
  const started = performance.now();
  const generate = (turns: GenerationRequest["turns"], round: number) => {
    const seed = deriveSeed(decoding.seed ?? 0, sha256, round);
    // The paper's prompt has no system message.
    return generateAnswer(engine, { ...decoding, seed, system: "", turns, images: [image] }, signal);
  };
  const prompt = promptStyle === "paper" ? instruction : "";
  const first = { role: "user", text: prompt, images: 1 } as const;
  let answer = await generate(promptStyle === "paper" ? [first] : "describe", 0);
  let { text, promptTokens, tokens: completionTokens } = answer;
  const continuations: Continuation[] = [];
  while (completionTokens <= shortAnswer && continuations.length < continues) {
    const turns = [first, { role: "assistant", text }, { role: "user", text: continuePrompt }] as const;
    answer = await generate(turns, continuations.length + 1);
    promptTokens += answer.promptTokens;
    completionTokens += answer.tokens;
    const joined = join(text, answer.text);
    continuations.push(joined.outcome);
    text = joined.text;
    if (joined.outcome !== "added") break;
  }
  return {
    text,
    prompt: prompt || promptStyle,
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

/** Appends a continuation to a text. The continuation may start with the whole text again. */
export function join(text: string, more: string): { readonly text: string; readonly outcome: Continuation } {
  if (more === "") return { text, outcome: "empty" };
  if (normalize(text).endsWith(normalize(more))) return { text, outcome: "repeated" };
  if (more.startsWith(text)) return { text: more, outcome: "added" };
  const between = /^[.,;:!?)]/.test(more) ? "" : " ";
  return { text: `${text}${between}${more}`, outcome: "added" };
}

/** Lowercases a text and collapses whitespace. */
function normalize(text: string): string {
  return text.toLowerCase().replace(/\s+/g, " ");
}

async function generateAnswer(engine: Engine, request: GenerationRequest, signal?: AbortSignal): Promise<Answer> {
  let [text, promptTokens, tokens] = ["", 0, 0];
  let end: FinishReason = "stop";
  for await (const event of engine.generate(request, signal)) {
    if (event.kind === "begin") promptTokens = event.promptTokens;
    else if (event.kind === "text") text += event.text;
    else [tokens, end] = [event.tokens, event.reason];
  }
  // A model can generate a null character, at which SQLite would truncate the text.
  return { text: text.replaceAll("\0", "").trim(), promptTokens, tokens, end };
}

/** The seed of an image, independent of the order of images. */
function deriveSeed(seed: number, sha256: string, round: number): number {
  return createHash("sha256").update(`${seed} ${sha256} ${round}`).digest().readUInt32LE();
}

/** Name of this step in the table of failures. */
export const describeStep = "describe";
/** Concurrent images by default; the engine batches them as its memory allows. */
const defaultParallel = 16;
/** Attempts per image by default. */
export const defaultTries = 3;

export interface DescribeOptions extends DescriptionOptions {
  /** Images that are described concurrently. @default 16 */
  readonly parallel?: number;
  /** Attempts per image, over all runs. @default 3 */
  readonly tries?: number;
  /** Called with the number of images that have a text or failed in this run, of all images. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly onFailure?: (image: ProjectImage, message: string) => void;
}

export interface DescribeReport {
  readonly described: number;
  /** Short descriptions that were continued, and those that became longer. */
  readonly continued: number;
  readonly longer: number;
  /** Images that failed in this run; the next one retries them. */
  readonly failed: number;
  /** Images that failed too often in earlier runs and were skipped. */
  readonly givenUp: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Lists the images without a description. */
export function undescribed(
  store: CurationStore,
  tries = defaultTries,
): { readonly images: readonly ProjectImage[]; readonly givenUp: number; readonly total: number } {
  const failures = store.failures(describeStep);
  const entries = store.entries();
  const empty = entries.filter(({ current }) => !current).map(({ image }) => image);
  const images = empty.filter(({ id }) => (failures.get(id)?.times ?? 0) < tries);
  return { images, givenUp: empty.length - images.length, total: entries.length };
}

/**
 * Describes all images without a text, several at a time. Each text is saved immediately, so an interrupted run continues with the next
 * call.
 *
 * @throws the signal's reason on abort; Error if the engine fails repeatedly
 */
export async function describeImages(
  store: CurationStore,
  engine: Engine,
  options: DescribeOptions,
  signal?: AbortSignal,
): Promise<DescribeReport> {
  const { parallel = defaultParallel, tries, onProgress, onFailure } = options;
  const { images, givenUp, total } = undescribed(store, tries);
  const report = { described: 0, continued: 0, longer: 0, failed: 0, givenUp, promptTokens: 0, completionTokens: 0 };
  let done = total - images.length;
  // Aborts all workers when one fails for a reason that is not its image.
  const failing = new AbortController();
  const stop = AbortSignal.any([failing.signal, ...(signal ? [signal] : [])]);
  // Every worker adds a listener; this is not a leak.
  setMaxListeners(parallel + 1, stop);

  async function describe(image: ProjectImage): Promise<void> {
    let described: Description;
    try {
      described = await describeRetrying(engine, image, options, stop);
    } catch (error) {
      const message = stop.aborted ? undefined : imageFault(image, error);
      if (message === undefined) throw error;
      store.addFailure(image.id, describeStep, message);
      // An engine that exits twice for one image would do so for all.
      if (error instanceof EngineLostError) throw error;
      report.failed++;
      onFailure?.(image, message);
      return;
    }
    if (!addDescription(store, image, engine.model.name, described)) return;
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

/** Retries once if the engine exits, since another image of the batch may be the reason. */
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

/** The error message if the image may be at fault; otherwise undefined. */
function imageFault({ name }: ProjectImage, error: unknown): string | undefined {
  if (error instanceof ImageLostError || error instanceof EngineLostError) return error.message;
  if (!(error instanceof RequestError) || error.code !== "invalid_image") return undefined;
  return error.message.replace(imageInMemory, () => name);
}

/** Saves a description. @returns false if another process has described the image in the meantime */
function addDescription(
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
