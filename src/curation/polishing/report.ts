/** What polishing can be told, and what it tells. */
import type { ServiceOptions } from "./chat-service.ts";
import type { PlanOptions } from "./plan.ts";

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
