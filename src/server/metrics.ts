/** Prometheus metrics of the server. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine/engine.ts";

/** Histogram buckets in seconds, from a cached response to a long one. */
const buckets = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Number of running and waiting requests. */
export interface Load {
  readonly running: number;
  readonly waiting: number;
}

export interface FirstToken {
  /** Tokens of the prompt, image tokens included. */
  readonly promptTokens: number;
  /** Prompt tokens that were taken from the prefix cache. */
  readonly cachedTokens: number;
  /** Time from the request to the first text, in seconds. */
  readonly seconds: number;
}

export interface Completion {
  readonly tokens: number;
  /** "cancelled" if the client disconnected, the request timed out or the server was shutting down; "error" if the engine failed. */
  readonly reason: "stop" | "length" | "cancelled" | "error";
}

export class ServerMetrics {
  private readonly registry = new Registry();
  private readonly requests = this.counter("http_requests_total", "HTTP requests", ["route", "status"]);
  private readonly durations = new Histogram({
    name: "minigpt4_http_request_duration_seconds",
    help: "Time from a request to the end of its response",
    labelNames: ["route"],
    buckets,
    registers: [this.registry],
  });
  private readonly promptTokens = this.counter("prompt_tokens_total", "Prompt tokens, image tokens included");
  private readonly cachedTokens = this.counter(
    "cached_prompt_tokens_total",
    "Prompt tokens taken from the prefix cache",
  );
  private readonly generatedTokens = this.counter("generated_tokens_total", "Generated tokens");
  private readonly completions = this.counter("answers_total", "Completions by finish reason", ["reason"]);
  private readonly firstTokens = new Histogram({
    name: "minigpt4_time_to_first_token_seconds",
    help: "Time from a request to the first text of its response",
    buckets,
    registers: [this.registry],
  });

  /**
   * @param load called when the metrics are rendered
   * @param engine its memory is reported if it runs in a process of its own
   */
  constructor(load: () => Load = () => ({ running: 0, waiting: 0 }), engine: Pick<Engine, "residentBytes"> = {}) {
    this.gauge("questions_running", "Requests that are running", () => load().running);
    this.gauge("questions_waiting", "Requests that wait in the queue", () => load().waiting);
    this.gauge("process_resident_memory_bytes", "Resident memory of the server process", () =>
      process.memoryUsage.rss(),
    );
    if (engine.residentBytes !== undefined) {
      this.gauge(
        "engine_resident_memory_bytes",
        "Resident memory of the model process",
        () => engine.residentBytes ?? 0,
      );
    }
    this.gauge("process_heap_used_bytes", "JavaScript heap in use", () => process.memoryUsage().heapUsed);
    this.gauge("process_uptime_seconds", "Time since the process started", () => process.uptime());
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** @param route template of the route ("/v1/models/:model"), never the path of the request. @param duration in seconds */
  recordRequest(route: string, status: number, duration: number): void {
    this.requests.inc({ route, status });
    this.durations.observe({ route }, duration);
  }

  recordFirstToken({ promptTokens, cachedTokens, seconds }: FirstToken): void {
    this.promptTokens.inc(promptTokens);
    this.cachedTokens.inc(cachedTokens);
    this.firstTokens.observe(seconds);
  }

  recordCompletion({ tokens, reason }: Completion): void {
    this.generatedTokens.inc(tokens);
    this.completions.inc({ reason });
  }

  /** All metrics in Prometheus' text format. */
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
