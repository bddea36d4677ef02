/** Polishing: a chat model rewrites the descriptions. */
import { ChatService } from "./polishing/chat-service.ts";
import { planPolish } from "./polishing/plan.ts";
import { estimateTokens, polishingMessage, polishingPrompt } from "./polishing/prompt.ts";
import type { PolishOptions, PolishReport } from "./polishing/report.ts";
import { Polishing } from "./polishing/run.ts";
import type { CurationStore } from "./store.ts";

/**
 * Polishes described texts. What it has done stays if it is interrupted, in whatever way; the next call goes on.
 * @param signal ends it, without an error
 * @throws PolishError if the service cannot be asked
 */
export async function polish(
  store: CurationStore,
  options: PolishOptions,
  signal?: AbortSignal,
): Promise<PolishReport> {
  const service = new ChatService(options, signal);
  const model = options.model ?? (await service.onlyModel());
  const { prompt = polishingPrompt, temperature = 0 } = options;
  const plan = planPolish(store, { model, prompt, temperature }, options);
  return await new Polishing(store, service, { ...options, model, prompt, temperature }, plan, signal).run();
}

export interface PolishEstimate {
  readonly texts: number;
  readonly givenUpBefore: number;
  readonly promptTokens: number;
  /** If each text keeps its length. */
  readonly completionTokens: number;
  readonly cost?: number;
  readonly projectTokens: number;
}

/** About what polishing would take, without asking anybody. */
export function estimatePolish(store: CurationStore, options: Omit<PolishOptions, "baseUrl">): PolishEstimate {
  const { model, prompt = polishingPrompt, temperature = 0, prices } = options;
  const { tasks, givenUp } = planPolish(store, { model, prompt, temperature }, options);
  const sum = (of: (text: string) => number) => tasks.reduce((total, { source }) => total + of(source.text), 0);
  const promptTokens = sum((text) => estimateTokens(polishingMessage(prompt, text)));
  const completionTokens = sum(estimateTokens);
  return {
    texts: tasks.length,
    givenUpBefore: givenUp,
    promptTokens,
    completionTokens,
    ...(prices && { cost: (promptTokens * prices.input + completionTokens * prices.output) / 1e6 }),
    projectTokens: store.tokensOf("polished"),
  };
}
