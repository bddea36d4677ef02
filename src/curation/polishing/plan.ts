/** Which texts are polished, in which order. */
import type { Entry, Version } from "../entry.ts";
import type { CurationStore } from "../store.ts";
import type { ServiceOptions } from "./chat-service.ts";

/** The step's name where failures are noted: answers that were not taken. */
export const polishStep = "polish";
/** Requests that failed, of which the text knows nothing: they are sent again by the next run. */
export const requestStep = "polish (request)";
/** So often answers may be not taken until a text is left as it is. */
export const mostTries = 3;

export interface PolishTask {
  /** The image's current version. */
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
  const triesOf = (image: number) => (options.retryFailed ? 0 : (notTaken.get(image)?.times ?? 0));
  const tasks: PolishTask[] = [];
  const polished: PolishTask[] = [];
  let givenUp = 0;
  for (const entry of store.entries()) {
    const source = sourceOf(store, entry, options.again ?? false);
    if (!source || !entry.current) continue;
    const tries = triesOf(entry.image.id);
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
  const late = ({ current }: PolishTask) => (failed.has(current.image) ? 1 : 0);
  tasks.sort((a, b) => late(a) - late(b) || a.current.id - b.current.id);
  return { tasks: tasks.slice(0, options.limit), again, givenUp };
}

/** The version whose text is to be polished; undefined if none is. */
function sourceOf(store: CurationStore, { image, current }: Entry, again: boolean): Version | undefined {
  if (current?.kind === "described") return current;
  if (current?.kind !== "polished" || !again) return undefined;
  const versions = store.versions(image.id);
  if (versions.some(({ kind }) => kind === "edited")) return undefined;
  return versions.findLast(({ kind }) => kind === "described");
}

/** When the pass began that made a version with these settings; 0 if none did. */
function passOf({ author, prompt, details }: Version, setting: PolishSetting): number {
  const same = author === setting.model && prompt === setting.prompt && details.temperature === setting.temperature;
  return same && typeof details.again === "number" ? details.again : 0;
}

// What the polishing model is asked, and about how many tokens that takes.

/** The paper's. */
export const polishingPrompt =
  "Fix the error in the given paragraph. Remove any repeating sentences, meaningless characters, not English sentences, and so on. Remove unnecessary repetition. Rewrite any incomplete sentences. Return directly the results without explanation. Return directly the input paragraph if it is already correct without explanation.";

/** Where the paragraph stands in a prompt of one's own. */
export const paragraphPlace = "{paragraph}";

/**
 * The user's message. The paper gives the instruction and says that the paragraph is given with it, not how they are joined: here the
 * paragraph follows after an empty line, with nothing around it. A prompt that says where the paragraph stands has it there.
 */
export function polishingMessage(prompt: string, paragraph: string): string {
  if (!prompt.includes(paragraphPlace)) return `${prompt}\n\n${paragraph}`;
  return prompt.split(paragraphPlace).join(paragraph);
}

/** About how many tokens a text has: English has four bytes in each. */
export function estimateTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

/** Room for an answer, in tokens: a polished text is seldom longer than the text. */
export function roomFor(text: string): number {
  return Math.max(64, Math.ceil(1.5 * estimateTokens(text)));
}

// What polishing can be told, and what it tells.

export interface PolishOptions extends ServiceOptions, PlanOptions {
  /** Default: the only one that the service has. */
  readonly model?: string;
  /** Default: the paper's. */
  readonly prompt?: string;
  /** Default 0. */
  readonly temperature?: number;
  /** Longest answer in tokens; default one and a half times the text's length, and more where that was too little. */
  readonly maxTokens?: number;
  /** Requests at once; default 4. */
  readonly parallel?: number;
  /** Tokens that polishing may cost the project, with those that it has cost already. */
  readonly budget?: number;
  /** Of a million tokens, in any currency. */
  readonly prices?: { readonly input: number; readonly output: number };
  readonly onProgress?: (progress: PolishProgress) => void;
}

interface PolishProgress {
  /** Texts that nothing is done for any more. */
  readonly done: number;
  readonly total: number;
  readonly tokens: number;
  readonly cost?: number;
}

export interface PolishReport {
  readonly model: string;
  /** Texts that there were to polish. */
  readonly texts: number;
  readonly polished: number;
  /** Of the polished ones, those whose text stayed as it was. */
  readonly unchanged: number;
  /** Texts that are left as they are, because no answer could be taken. */
  readonly notTaken: number;
  /** Texts whose requests failed; the next run sends them again. */
  readonly failed: number;
  /** Answers that were dropped because somebody had changed the text meanwhile, and texts for which that was seen before they were sent. */
  readonly changedMeanwhile: number;
  /** Texts that an earlier run has left as they are. */
  readonly givenUpBefore: number;
  /** Why answers were not taken, and how often. */
  readonly reasons: Readonly<Record<string, number>>;
  readonly requests: number;
  /** Of all answers, also of those that were not taken. */
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cost?: number;
  /** Tokens of all polished versions in the project. */
  readonly projectTokens: number;
  readonly seconds: number;
  /** Why it ended before all was done. */
  readonly stopped?: "interrupted" | "budget" | "service";
}

/** The service will answer no question, or the project cannot be written. */
export class PolishError extends Error {
  override name = "PolishError";
  /** What was done before. */
  readonly report: PolishReport;

  constructor(message: string, report: PolishReport) {
    super(message);
    this.report = report;
  }
}
