/** Polishing: a chat model rewrites the descriptions. */
import { StaleVersionError, type VersionDetails } from "../entry.ts";
import type { CurationStore } from "../store.ts";
import { checkAnswer } from "./answer-check.ts";
import { ChatService } from "./chat-service.ts";
import {
  estimateTokens,
  mostTries,
  PolishError,
  type PolishOptions,
  type PolishPlan,
  type PolishReport,
  type PolishTask,
  planPolish,
  polishingMessage,
  polishingPrompt,
  polishStep,
  requestStep,
  roomFor,
} from "./plan.ts";
import { TokenBudget } from "./rate-limit.ts";
import { type ChatAnswer, ServiceError } from "./service-error.ts";

// One run of polishing: several workers ask at once, and each answer is kept as soon as it is there.

/** So many texts in a row without an answer: nothing will come any more. */
const mostFailures = 5;

interface Usage extends VersionDetails {
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** All that is asked the same way for every text. */
interface PolishSettings extends PolishOptions {
  readonly model: string;
  readonly prompt: string;
  readonly temperature: number;
}

class Polishing {
  private readonly store: CurationStore;
  private readonly service: ChatService;
  private readonly settings: PolishSettings;
  private readonly plan: PolishPlan;
  private readonly signal: AbortSignal | undefined;
  private readonly budget: TokenBudget;
  private readonly began = performance.now();
  private next = 0;
  private stopped: PolishReport["stopped"];
  private problem: ServiceError | undefined;
  /** Texts in a row without an answer. */
  private unanswered = 0;
  private counts = { polished: 0, unchanged: 0, notTaken: 0, failed: 0, changedMeanwhile: 0 };
  private tokens = { promptTokens: 0, completionTokens: 0 };
  /** Of answers that no version holds. */
  private lost = 0;
  private readonly reasons: Record<string, number> = {};

  constructor(
    store: CurationStore,
    service: ChatService,
    settings: PolishSettings,
    plan: PolishPlan,
    signal: AbortSignal | undefined,
  ) {
    this.store = store;
    this.service = service;
    this.settings = settings;
    this.plan = plan;
    this.signal = signal;
    this.budget = new TokenBudget(
      settings.budget ?? Number.POSITIVE_INFINITY,
      () => store.tokensOf("polished") + this.lost,
    );
  }

  async run(): Promise<PolishReport> {
    if (this.plan.tasks.length > 0) this.progress();
    const workers = Array.from({ length: this.settings.parallel ?? 4 }, () => this.work());
    const ends = await Promise.allSettled(workers);
    const crash = ends.find((end) => end.status === "rejected");
    if (crash) throw crash.reason;
    // What could not be asked once more while others were on their way is left, although the run went on.
    if (this.done < this.plan.tasks.length) this.stopped ??= "budget";
    if (this.problem) throw new PolishError(this.problem.message, this.report());
    return this.report();
  }

  /** One of those who ask at once. */
  private async work(): Promise<void> {
    try {
      for (;;) {
        if (this.signal?.aborted) this.stopped ??= "interrupted";
        const task = this.plan.tasks[this.next];
        if (!task || this.stopped) return;
        const close = this.reserve(task, 1);
        if (!close) return;
        this.next++;
        await this.polishOne(task, close);
        this.progress();
      }
    } catch (error) {
      // The project cannot be written: what the others would be answered could not be kept.
      this.stopped ??= "service";
      this.service.halt(new ServiceError("final", error instanceof Error ? error.message : String(error)));
      throw error;
    }
  }

  private async polishOne(task: PolishTask, close: () => void): Promise<void> {
    const { current, source } = task;
    if (this.store.entry(current.image)?.current?.id !== current.id) {
      close();
      this.counts.changedMeanwhile++;
      return;
    }
    if (source.text.trim() === "") {
      close();
      this.store.addFailure(current.image, polishStep, "The text is empty");
      this.counts.notTaken++;
      return;
    }
    let free: (() => void) | undefined = close;
    for (let tries = task.tries, enlarged = 1; free; free = this.reserve(task, enlarged)) {
      const began = performance.now();
      let answer: ChatAnswer;
      try {
        answer = await this.service.complete({ ...this.settings, ...this.question(task, enlarged) });
      } catch (error) {
        this.unansweredFor(task, error);
        return;
      } finally {
        free();
      }
      this.unanswered = 0;
      const usage = this.usageOf(task, answer);
      const judgement = checkAnswer(answer, source.text, this.settings.prompt);
      if ("text" in judgement) {
        const duration = Math.round(performance.now() - began);
        const stripped = judgement.rules;
        this.keep(task, judgement.text, { ...usage, duration, ...(stripped.length > 0 && { stripped }) });
        return;
      }
      const { rejected, message } = judgement;
      this.lost += usage.promptTokens + usage.completionTokens;
      this.reasons[rejected] = (this.reasons[rejected] ?? 0) + 1;
      this.store.addFailure(current.image, polishStep, message);
      if (++tries >= mostTries) {
        this.counts.notTaken++;
        return;
      }
      if (rejected === "cut off") enlarged *= 2;
    }
  }

  private question({ source }: PolishTask, enlarged: number): { readonly content: string; readonly maxTokens: number } {
    const { prompt, maxTokens } = this.settings;
    return { content: polishingMessage(prompt, source.text), maxTokens: maxTokens ?? roomFor(source.text) * enlarged };
  }

  /** Sets tokens aside. If they are not there, it is over, unless answers on their way turn out to cost less. */
  private reserve(task: PolishTask, enlarged: number): (() => void) | undefined {
    const { content, maxTokens } = this.question(task, enlarged);
    const close = this.budget.reserve(estimateTokens(content), maxTokens);
    if (!close && this.budget.settled) this.stopped ??= "budget";
    return close;
  }

  private usageOf(task: PolishTask, { text, usage }: ChatAnswer): Usage {
    const { content } = this.question(task, 1);
    const counted = usage ?? { promptTokens: estimateTokens(content), completionTokens: estimateTokens(text) };
    this.budget.learn(estimateTokens(content), counted.promptTokens);
    this.tokens.promptTokens += counted.promptTokens;
    this.tokens.completionTokens += counted.completionTokens;
    const cost = this.costOf(counted);
    return { ...counted, ...(!usage && { estimated: true }), ...(cost !== undefined && { cost }) };
  }

  private keep({ current, source }: PolishTask, text: string, details: Usage): void {
    const { model, prompt, temperature } = this.settings;
    const { again } = this.plan;
    try {
      this.store.addVersion({
        image: current.image,
        parent: current.id,
        kind: "polished",
        text,
        author: model,
        prompt,
        details: {
          ...details,
          temperature,
          service: this.service.baseUrl,
          ...(again !== undefined && { again, source: source.id }),
        },
      });
    } catch (error) {
      if (!(error instanceof StaleVersionError)) throw error;
      this.lost += details.promptTokens + details.completionTokens;
      this.counts.changedMeanwhile++;
      return;
    }
    this.counts.polished++;
    if (text === source.text) this.counts.unchanged++;
  }

  private unansweredFor({ current }: PolishTask, error: unknown): void {
    if (this.signal?.aborted) {
      this.stopped ??= "interrupted";
      return;
    }
    if (!(error instanceof ServiceError)) throw error;
    if (error.kind === "final") {
      this.fail(error);
      return;
    }
    this.counts.failed++;
    this.store.addFailure(current.image, requestStep, error.message);
    if (++this.unanswered < mostFailures) return;
    this.fail(new ServiceError("final", `${error.message}; so it was for ${mostFailures} texts in a row`));
  }

  private fail(problem: ServiceError): void {
    this.stopped ??= "service";
    this.problem ??= problem;
    this.service.halt(problem);
  }

  private costOf({ promptTokens, completionTokens }: { promptTokens: number; completionTokens: number }) {
    const { prices } = this.settings;
    return prices && (promptTokens * prices.input + completionTokens * prices.output) / 1e6;
  }

  /** Texts that nothing is done for any more. */
  private get done(): number {
    const { polished, notTaken, failed, changedMeanwhile } = this.counts;
    return polished + notTaken + failed + changedMeanwhile;
  }

  private progress(): void {
    const { promptTokens, completionTokens } = this.tokens;
    const cost = this.costOf(this.tokens);
    this.settings.onProgress?.({
      done: this.done,
      total: this.plan.tasks.length,
      tokens: promptTokens + completionTokens,
      ...(cost !== undefined && { cost }),
    });
  }

  private report(): PolishReport {
    const cost = this.costOf(this.tokens);
    return {
      model: this.settings.model,
      texts: this.plan.tasks.length,
      ...this.counts,
      givenUpBefore: this.plan.givenUp,
      reasons: this.reasons,
      requests: this.service.requests,
      ...this.tokens,
      ...(cost !== undefined && { cost }),
      projectTokens: this.store.tokensOf("polished"),
      seconds: (performance.now() - this.began) / 1000,
      ...(this.stopped && { stopped: this.stopped }),
    };
  }
}

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
