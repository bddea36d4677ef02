/** Plans polishing: options, the order of texts, the prompt, and token estimates. */
import type { Entry, Version } from "../entry.ts";
import type { CurationStore } from "../store.ts";
import type { ServiceOptions } from "./chat-service.ts";

/** Name of this step in the table of failures, for rejected answers. */
export const polishStep = "polish";
/** The same for failed requests, which say nothing about the text: the next run sends them again. */
export const requestStep = "polish (request)";
/** Rejected answers after which a text stays as it is. */
export const maxTries = 3;

export interface PolishTask {
  /** The current version of the image's text. */
  readonly current: Version;
  /** The version to polish; not the current one if a polished text is polished again. */
  readonly source: Version;
  /** Number of rejected answers so far. */
  readonly tries: number;
}

export interface PolishPlan {
  readonly tasks: readonly PolishTask[];
  /** Start of the pass that polishes texts again, as Unix time in milliseconds; undefined without `again`. */
  readonly again?: number;
  /** Number of texts that an earlier run has given up on. */
  readonly givenUp: number;
}

/** The settings that identify a pass. */
export interface PolishSetting {
  readonly model?: string;
  readonly prompt: string;
  readonly temperature: number;
}

export interface PlanOptions {
  /** Maximum number of texts. */
  readonly limit?: number;
  /** Also polish polished texts again, unless a person has edited them. */
  readonly again?: boolean;
  /** Also retry texts that an earlier run has given up on. */
  readonly retryFailed?: boolean;
}

/**
 * Lists the texts to polish, oldest first. Texts whose requests failed before come last, so that they do not delay the others.
 *
 * Polishing again is one pass over all texts, which can be interrupted. Versions record when their pass started (`details.again`). A pass
 * with the same model, prompt and temperature continues while it has texts left; otherwise a new one starts.
 */
export function planPolish(store: CurationStore, setting: PolishSetting, options: PlanOptions = {}): PolishPlan {
  const rejected = store.failures(polishStep);
  const failed = store.failures(requestStep);
  const tasks: PolishTask[] = [];
  const polished: PolishTask[] = [];
  let givenUp = 0;
  for (const entry of store.entries()) {
    const source = findSource(store, entry, options.again ?? false);
    if (!source || !entry.current) continue;
    const tries = options.retryFailed ? 0 : (rejected.get(entry.image.id)?.times ?? 0);
    if (tries >= maxTries) givenUp++;
    else (source === entry.current ? tasks : polished).push({ current: entry.current, source, tries });
  }
  let again: number | undefined;
  if (options.again) {
    const started = Math.max(0, ...polished.map(({ current }) => passStart(current, setting)));
    const open = polished.filter(({ current }) => current.madeAt < started);
    const continues = open.length + tasks.length > 0 && started > 0;
    again = continues ? started : Date.now();
    tasks.push(...(continues ? open : polished));
  }
  const late = ({ current }: PolishTask) => (failed.has(current.image) ? 1 : 0);
  tasks.sort((a, b) => late(a) - late(b) || a.current.id - b.current.id);
  return { tasks: tasks.slice(0, options.limit), again, givenUp };
}

/** The version of an entry to polish; undefined if there is nothing to polish. */
function findSource(store: CurationStore, { image, current }: Entry, again: boolean): Version | undefined {
  if (current?.kind === "described") return current;
  if (current?.kind !== "polished" || !again) return undefined;
  const versions = store.versions(image.id);
  if (versions.some(({ kind }) => kind === "edited")) return undefined;
  return versions.findLast(({ kind }) => kind === "described");
}

/** Start of the pass with these settings that made a version; 0 if no such pass made it. */
function passStart({ author, prompt, details }: Version, setting: PolishSetting): number {
  const same = author === setting.model && prompt === setting.prompt && details.temperature === setting.temperature;
  return same && typeof details.again === "number" ? details.again : 0;
}

/** The paper's prompt. */
export const polishingPrompt =
  "Fix the error in the given paragraph. Remove any repeating sentences, meaningless characters, not English sentences, and so on. Remove unnecessary repetition. Rewrite any incomplete sentences. Return directly the results without explanation. Return directly the input paragraph if it is already correct without explanation.";

/** Placeholder for the paragraph in a custom prompt. */
export const paragraphPlace = "{paragraph}";

/**
 * Builds the user message. The paragraph replaces the placeholder, or is appended after an empty line. (The paper does not say how it
 * joins prompt and paragraph.)
 */
export function polishingMessage(prompt: string, paragraph: string): string {
  if (!prompt.includes(paragraphPlace)) return `${prompt}\n\n${paragraph}`;
  return prompt.split(paragraphPlace).join(paragraph);
}

/** Estimates the number of tokens of a text: English has about four bytes per token. */
export function estimateTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

/** Maximum length of an answer in tokens: a polished text is rarely longer than the text. */
export function maxAnswerTokens(text: string): number {
  return Math.max(64, Math.ceil(1.5 * estimateTokens(text)));
}

/** Options of `polish`. */
export interface PolishOptions extends ServiceOptions, PlanOptions {
  /** @default the service's only model */
  readonly model?: string;
  /** @default the paper's prompt */
  readonly prompt?: string;
  /** @default 0 */
  readonly temperature?: number;
  /** Maximum length of an answer in tokens. @default 1.5 times the text; doubled if an answer reaches it */
  readonly maxTokens?: number;
  /** Concurrent requests. @default 4 */
  readonly parallel?: number;
  /** Maximum number of tokens for the project, including earlier runs. @default unlimited */
  readonly budget?: number;
  /** Prices per million tokens, in any currency. */
  readonly prices?: { readonly input: number; readonly output: number };
  readonly onProgress?: (progress: PolishProgress) => void;
}

interface PolishProgress {
  /** Number of texts that this run is finished with. */
  readonly done: number;
  readonly total: number;
  readonly tokens: number;
  readonly cost?: number;
}

export interface PolishReport {
  readonly model: string;
  /** Number of texts to polish. */
  readonly texts: number;
  readonly polished: number;
  /** Polished texts that did not change. */
  readonly unchanged: number;
  /** Texts that stay as they are, because all answers were rejected. */
  readonly notTaken: number;
  /** Texts whose requests failed; the next run sends them again. */
  readonly failed: number;
  /** Texts that someone has changed during the run, before or after the request was sent. */
  readonly changedMeanwhile: number;
  /** Texts that an earlier run has given up on. */
  readonly givenUpBefore: number;
  /** Number of rejected answers, by reason. */
  readonly reasons: Readonly<Record<string, number>>;
  readonly requests: number;
  /** Includes rejected answers. */
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cost?: number;
  /** Tokens of all polished versions in the project. */
  readonly projectTokens: number;
  readonly seconds: number;
  /** Why the run ended early. */
  readonly stopped?: "interrupted" | "budget" | "service";
}

/** The service cannot be used. */
export class PolishError extends Error {
  override name = "PolishError";
  /** The report up to the error. */
  readonly report: PolishReport;

  constructor(message: string, report: PolishReport) {
    super(message);
    this.report = report;
  }
}
