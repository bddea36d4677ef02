/** Which texts are polished, in which order. */
import type { Entry, Version } from "../entry.ts";
import type { CurationStore } from "../store.ts";

/** The step's name where failures are noted: answers that were not taken. */
export const polishStep = "polish";
/** Requests that failed, of which the text knows nothing: they are sent again by the next run. */
export const requestStep = "polish (request)";
/** So often answers may be not taken until a text is left as it is. */
export const mostTries = 3;

export interface PolishTask {
  /** The picture's current version. */
  readonly current: Version;
  /** The version whose text is polished; another one where a polished text is polished anew. */
  readonly source: Version;
  /** How many answers were not taken so far. */
  readonly tries: number;
}

export interface PolishPlan {
  readonly tasks: readonly PolishTask[];
  /** When texts began to be polished anew; undefined if they are not. */
  readonly again: number | undefined;
  /** How many texts were left as they are by an earlier run. */
  readonly givenUp: number;
}

/** What polished versions are told apart by. */
export interface PolishSetting {
  readonly model?: string;
  readonly prompt: string;
  readonly temperature: number;
}

export interface PlanOptions {
  /** At most so many. */
  readonly limit?: number;
  /** Polished texts too, unless a person has changed them. */
  readonly again?: boolean;
  /** Also those that an earlier run has left as they are. */
  readonly retryFailed?: boolean;
}

/**
 * Described texts, the oldest first; those whose requests failed before come last, so that they hold up no others.
 *
 * Polishing anew is one pass over all that there is, which may be interrupted: versions note when their pass began (`details.again`), and
 * as long as it has left anything open with the same model, prompt and temperature, it is gone on with. Otherwise a new one begins.
 */
export function planPolish(store: CurationStore, setting: PolishSetting, options: PlanOptions = {}): PolishPlan {
  const notTaken = store.failures(polishStep);
  const failed = store.failures(requestStep);
  const triesOf = (picture: number) => (options.retryFailed ? 0 : (notTaken.get(picture)?.times ?? 0));
  const tasks: PolishTask[] = [];
  const polished: PolishTask[] = [];
  let givenUp = 0;
  for (const entry of store.entries()) {
    const source = sourceOf(store, entry, options.again ?? false);
    if (!source || !entry.current) continue;
    const tries = triesOf(entry.picture.id);
    if (tries >= mostTries) givenUp++;
    else (source === entry.current ? tasks : polished).push({ current: entry.current, source, tries });
  }
  let again: number | undefined;
  if (options.again) {
    const began = Math.max(0, ...polished.map(({ current }) => passOf(current, setting)));
    const open = polished.filter(({ current }) => current.madeAt < began);
    const goesOn = open.length + tasks.length > 0 && began > 0;
    again = goesOn ? began : Date.now();
    tasks.push(...(goesOn ? open : polished));
  }
  const late = ({ current }: PolishTask) => (failed.has(current.picture) ? 1 : 0);
  tasks.sort((a, b) => late(a) - late(b) || a.current.id - b.current.id);
  return { tasks: tasks.slice(0, options.limit), again, givenUp };
}

/** The version whose text is to be polished; undefined if none is. */
function sourceOf(store: CurationStore, { picture, current }: Entry, again: boolean): Version | undefined {
  if (current?.kind === "described") return current;
  if (current?.kind !== "polished" || !again) return undefined;
  const versions = store.versions(picture.id);
  if (versions.some(({ kind }) => kind === "edited")) return undefined;
  return versions.findLast(({ kind }) => kind === "described");
}

/** When the pass began that made a version with these settings; 0 if none did. */
function passOf({ author, prompt, details }: Version, setting: PolishSetting): number {
  const same = author === setting.model && prompt === setting.prompt && details.temperature === setting.temperature;
  return same && typeof details.again === "number" ? details.again : 0;
}
