/** The first step of a project: the first stage's model describes every picture that has no text yet. */
import { setMaxListeners } from "node:events";
import { type Engine, EngineLostError, QuestionError } from "../chat/engine/engine.ts";
import { pictureInMemory } from "../images/picture.ts";
import { type Description, type DescriptionOptions, describePicture } from "./description.ts";
import { type Picture, StaleVersionError } from "./entry.ts";
import { PictureLostError, pictureBytes } from "./picture-bytes.ts";
import type { CurationStore } from "./store.ts";

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
