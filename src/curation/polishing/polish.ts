/** Polishing: a chat model rewrites the descriptions. Several workers send requests, and each answer is saved immediately. */
import { StaleVersionError, type VersionDetails } from "../entry.ts";
import type { CurationStore } from "../store.ts";
import { checkAnswer } from "./answer-check.ts";
import { ChatService } from "./chat-service.ts";
import {
  estimateTokens,
  maxAnswerTokens,
  maxTries,
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
} from "./plan.ts";
import { TokenBudget } from "./rate-limit.ts";
import { type ChatAnswer, ServiceError } from "./service-error.ts";

/** The run ends after this many texts in a row without an answer. */
const maxFailures = 5;

interface Usage extends VersionDetails {
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Settings that are the same for every text. */
interface PolishSettings extends PolishOptions {
  readonly model: string;
  readonly prompt: string;
  readonly temperature: number;
}

/** One run of polishing. */
class PolishRun {
  private readonly store: CurationStore;
  private readonly service: ChatService;
  private readonly settings: PolishSettings;
  private readonly plan: PolishPlan;
  private readonly signal?: AbortSignal;
  private readonly budget: TokenBudget;
  private readonly started = performance.now();
  private next = 0;
  private stopped: PolishReport["stopped"];
  private problem?: ServiceError;
  /** Texts in a row without an answer. */
  private unanswered = 0;
  private counts = { polished: 0, unchanged: 0, notTaken: 0, failed: 0, changedMeanwhile: 0 };
  private tokens = { promptTokens: 0, completionTokens: 0 };
  /** Tokens of answers that were not saved. */
  private lost = 0;
  private readonly reasons: Record<string, number> = {};

  constructor(
    store: CurationStore,
    service: ChatService,
    settings: PolishSettings,
    plan: PolishPlan,
    signal?: AbortSignal,
  ) {
    this.store = store;
    this.service = service;
    this.settings = settings;
    this.plan = plan;
    this.signal = signal;
    this.budget = new TokenBudget(
      settings.budget ?? Number.POSITIVE_INFINITY,
      () => store.countTokens("polished") + this.lost,
    );
  }

  async run(): Promise<PolishReport> {
    if (this.plan.tasks.length > 0) this.progress();
    const workers = Array.from({ length: this.settings.parallel ?? 4 }, () => this.work());
    const results = await Promise.allSettled(workers);
    const crash = results.find((result) => result.status === "rejected");
    if (crash) throw crash.reason;
    // A retry that found the budget reserved by other requests is left over.
    if (this.done < this.plan.tasks.length) this.stopped ??= "budget";
    if (this.problem) throw new PolishError(this.problem.message, this.report());
    return this.report();
  }

  /** One worker. */
  private async work(): Promise<void> {
    try {
      for (;;) {
        if (this.signal?.aborted) this.stopped ??= "interrupted";
        const task = this.plan.tasks[this.next];
        if (!task || this.stopped) return;
        const free = this.reserve(task, 1);
        if (!free) return;
        this.next++;
        await this.polishOne(task, free);
        this.progress();
      }
    } catch (error) {
      // The project cannot be written, so answers of the other workers could not be saved.
      this.stopped ??= "service";
      this.service.halt(new ServiceError("final", error instanceof Error ? error.message : String(error)));
      throw error;
    }
  }

  private async polishOne(task: PolishTask, freeFirst: () => void): Promise<void> {
    const { current, source } = task;
    if (this.store.entry(current.image)?.current?.id !== current.id) {
      freeFirst();
      this.counts.changedMeanwhile++;
      return;
    }
    if (source.text.trim() === "") {
      freeFirst();
      this.store.addFailure(current.image, polishStep, "The text is empty");
      this.counts.notTaken++;
      return;
    }
    let free: (() => void) | undefined = freeFirst;
    for (let tries = task.tries, enlarged = 1; free; free = this.reserve(task, enlarged)) {
      const started = performance.now();
      let answer: ChatAnswer;
      try {
        answer = await this.service.complete({ ...this.settings, ...this.createRequest(task, enlarged) });
      } catch (error) {
        this.recordFailure(task, error);
        return;
      } finally {
        free();
      }
      this.unanswered = 0;
      const usage = this.countUsage(task, answer);
      const check = checkAnswer(answer, source.text, this.settings.prompt);
      if ("text" in check) {
        const duration = Math.round(performance.now() - started);
        const stripped = check.rules.length > 0 ? check.rules : undefined;
        this.save(task, check.text, { ...usage, duration, stripped });
        return;
      }
      const { rejected, message } = check;
      this.lost += usage.promptTokens + usage.completionTokens;
      this.reasons[rejected] = (this.reasons[rejected] ?? 0) + 1;
      this.store.addFailure(current.image, polishStep, message);
      if (++tries >= maxTries) {
        this.counts.notTaken++;
        return;
      }
      if (rejected === "cut off") enlarged *= 2;
    }
  }

  private createRequest({ source }: PolishTask, enlarged: number) {
    const { prompt, maxTokens } = this.settings;
    return {
      content: polishingMessage(prompt, source.text),
      maxTokens: maxTokens ?? maxAnswerTokens(source.text) * enlarged,
    };
  }

  /** Reserves tokens. If the budget does not suffice, the run ends, unless requests in flight may turn out to cost less. */
  private reserve(task: PolishTask, enlarged: number): (() => void) | undefined {
    const { content, maxTokens } = this.createRequest(task, enlarged);
    const free = this.budget.reserve(estimateTokens(content), maxTokens);
    if (!free && this.budget.settled) this.stopped ??= "budget";
    return free;
  }

  private countUsage(task: PolishTask, { text, usage }: ChatAnswer): Usage {
    const { content } = this.createRequest(task, 1);
    const counted = usage ?? { promptTokens: estimateTokens(content), completionTokens: estimateTokens(text) };
    this.budget.learn(estimateTokens(content), counted.promptTokens);
    this.tokens.promptTokens += counted.promptTokens;
    this.tokens.completionTokens += counted.completionTokens;
    return { ...counted, estimated: usage ? undefined : true, cost: computeCost(counted, this.settings.prices) };
  }

  private save({ current, source }: PolishTask, text: string, details: Usage): void {
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
          again,
          source: again === undefined ? undefined : source.id,
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

  private recordFailure({ current }: PolishTask, error: unknown): void {
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
    if (++this.unanswered < maxFailures) return;
    this.fail(new ServiceError("final", `${error.message}. The same happened for ${maxFailures} texts in a row`));
  }

  private fail(problem: ServiceError): void {
    this.stopped ??= "service";
    this.problem ??= problem;
    this.service.halt(problem);
  }

  /** Number of texts that this run is finished with. */
  private get done(): number {
    const { polished, notTaken, failed, changedMeanwhile } = this.counts;
    return polished + notTaken + failed + changedMeanwhile;
  }

  private progress(): void {
    const { promptTokens, completionTokens } = this.tokens;
    this.settings.onProgress?.({
      done: this.done,
      total: this.plan.tasks.length,
      tokens: promptTokens + completionTokens,
      cost: computeCost(this.tokens, this.settings.prices),
    });
  }

  private report(): PolishReport {
    return {
      model: this.settings.model,
      texts: this.plan.tasks.length,
      ...this.counts,
      givenUpBefore: this.plan.givenUp,
      reasons: this.reasons,
      requests: this.service.requests,
      ...this.tokens,
      cost: computeCost(this.tokens, this.settings.prices),
      projectTokens: this.store.countTokens("polished"),
      seconds: (performance.now() - this.started) / 1000,
      stopped: this.stopped,
    };
  }
}

/**
 * Polishes described texts. An interrupted run continues with the next call.
 *
 * @param signal ends the run without an error
 * @throws PolishError if the service cannot be used
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
  return await new PolishRun(store, service, { ...options, model, prompt, temperature }, plan, signal).run();
}

export interface PolishEstimate {
  readonly texts: number;
  readonly givenUpBefore: number;
  readonly promptTokens: number;
  /** Assumes that texts keep their length. */
  readonly completionTokens: number;
  readonly cost?: number;
  readonly projectTokens: number;
}

/** Estimates the tokens and cost of polishing without sending requests. */
export function estimatePolish(store: CurationStore, options: Omit<PolishOptions, "baseUrl">): PolishEstimate {
  const { model, prompt = polishingPrompt, temperature = 0, prices } = options;
  const { tasks, givenUp } = planPolish(store, { model, prompt, temperature }, options);
  const sum = (count: (text: string) => number) => tasks.reduce((total, { source }) => total + count(source.text), 0);
  const promptTokens = sum((text) => estimateTokens(polishingMessage(prompt, text)));
  const completionTokens = sum(estimateTokens);
  return {
    texts: tasks.length,
    givenUpBefore: givenUp,
    promptTokens,
    completionTokens,
    cost: computeCost({ promptTokens, completionTokens }, prices),
    projectTokens: store.countTokens("polished"),
  };
}

function computeCost(
  { promptTokens, completionTokens }: { promptTokens: number; completionTokens: number },
  prices: PolishOptions["prices"],
): number | undefined {
  return prices && (promptTokens * prices.input + completionTokens * prices.output) / 1e6;
}
