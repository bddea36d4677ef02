/** What the server measures of itself, for Prometheus. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine/engine.ts";

/** Seconds: from what a cached answer takes to what a long one does. */
const seconds = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** How many questions are being answered, and how many wait for their turn. */
export interface Load {
  readonly running: number;
  readonly waiting: number;
}

export interface AnswerBegun {
  /** Positions of the prompt, those of images included. */
  readonly promptTokens: number;
  /** How many of them were not read anew. */
  readonly cachedTokens: number;
  /** From the request to the first text. */
  readonly secondsToFirstToken: number;
}

export interface AnswerEnded {
  readonly tokens: number;
  /** "cancelled" if nobody listened any more, "error" if the engine failed. */
  readonly reason: "stop" | "length" | "cancelled" | "error";
}

export class ServerMetrics {
  private readonly registry = new Registry();
  private readonly requests = this.counter("http_requests_total", "HTTP requests that were answered", [
    "route",
    "status",
  ]);
  private readonly durations = new Histogram({
    name: "minigpt4_http_request_duration_seconds",
    help: "Time from a request to the end of its answer",
    labelNames: ["route"],
    buckets: seconds,
    registers: [this.registry],
  });
  private readonly promptTokens = this.counter(
    "prompt_tokens_total",
    "Positions of all prompts, those of images included",
  );
  private readonly cachedTokens = this.counter(
    "cached_prompt_tokens_total",
    "Positions of prompts that were known and not read anew",
  );
  private readonly generatedTokens = this.counter("generated_tokens_total", "Tokens of all answers");
  private readonly answers = this.counter("answers_total", "Answers that ended, by the reason", ["reason"]);
  private readonly firstTokens = new Histogram({
    name: "minigpt4_time_to_first_token_seconds",
    help: "Time from a request to the first text of its answer",
    buckets: seconds,
    registers: [this.registry],
  });

  /**
   * @param load is asked for when the metrics are written
   * @param engine says what memory it has, if it has its own
   */
  constructor(load: () => Load = () => ({ running: 0, waiting: 0 }), engine: Pick<Engine, "residentBytes"> = {}) {
    this.gauge("questions_running", "Questions that are being answered", () => load().running);
    this.gauge("questions_waiting", "Questions that wait for their turn", () => load().waiting);
    this.gauge("process_resident_memory_bytes", "Memory of the server's process", () => process.memoryUsage.rss());
    if (engine.residentBytes !== undefined) {
      this.gauge("engine_resident_memory_bytes", "Memory of the model's process", () => engine.residentBytes ?? 0);
    }
    this.gauge("process_heap_used_bytes", "Memory of JavaScript objects", () => process.memoryUsage().heapUsed);
    this.gauge("process_uptime_seconds", "Time since the process began", () => process.uptime());
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** A request was answered. @param route the template of the route ("/v1/models/:model"), never the path that was asked for */
  request(route: string, status: number, duration: number): void {
    this.requests.inc({ route, status });
    this.durations.observe({ route }, duration);
  }

  answerBegun({ promptTokens, cachedTokens, secondsToFirstToken }: AnswerBegun): void {
    this.promptTokens.inc(promptTokens);
    this.cachedTokens.inc(cachedTokens);
    this.firstTokens.observe(secondsToFirstToken);
  }

  answerEnded({ tokens, reason }: AnswerEnded): void {
    this.generatedTokens.inc(tokens);
    this.answers.inc({ reason });
  }

  /** All of it in Prometheus' text format. */
  render(): Promise<string> {
    return this.registry.metrics();
  }

  private counter<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []): Counter<Label> {
    return new Counter({ name: `minigpt4_${name}`, help, labelNames, registers: [this.registry] });
  }

  private gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name: `minigpt4_${name}`,
      help,
      registers: [this.registry],
      collect() {
        this.set(value());
      },
    });
  }
}
