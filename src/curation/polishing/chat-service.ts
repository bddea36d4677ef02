/** Client of a service with OpenAI's chat API that retries transient errors and respects rate limits. */
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { APIConnectionError, APIError } from "openai";
import { RateLimiter, rateLimitReset, retryAfter, retryDelay } from "./rate-limit.ts";
import {
  type ChatAnswer,
  connectionError,
  detailOf,
  readAnswer,
  readError,
  readModels,
  ServiceError,
  type ServiceName,
  statusError,
} from "./service-error.ts";

export interface ServiceOptions {
  /** For example `http://127.0.0.1:8000/v1`. */
  readonly baseUrl: string;
  /** Many local servers want none. It is sent to the service, and appears nowhere else. */
  readonly apiKey?: string;
  /** The environment variable that the key comes from, for errors; default OPENAI_API_KEY. */
  readonly apiKeyName?: string;
  /** Longest time for an answer in milliseconds; default two minutes. */
  readonly timeout?: number;
  /** How often a question is asked again after failures that pass; default 5. */
  readonly retries?: number;
  /** Milliseconds before a question is asked again the first time; twice as long each time. Default 500. */
  readonly firstDelay?: number;
  /** Told when all wait because the service asks for it, in milliseconds. */
  readonly onPause?: (milliseconds: number) => void;
}

export interface ChatRequest {
  readonly model: string;
  readonly content: string;
  readonly temperature: number;
  readonly maxTokens: number;
}

/** Nobody waits longer for a limit of rate, in milliseconds. */
const longestPause = 15 * 60_000;
/** Keys shorter than this are no secrets ("none", "ollama"). */
const shortestSecret = 8;
const longestDetail = 200;

/** Newer models of OpenAI want another name, which most servers do not know; some models let no temperature be chosen. */
interface Accepted {
  readonly tokenLimit: "max_tokens" | "max_completion_tokens";
  readonly temperature: boolean;
}

interface Reply {
  readonly data: unknown;
  readonly response: Response;
}

export class ChatService {
  readonly baseUrl: string;
  /** How many requests were sent. */
  requests = 0;
  private readonly options: ServiceOptions;
  private readonly client: OpenAI;
  private readonly pace = new RateLimiter();
  /** Ends all waiting as soon as it is known that no question will be answered. */
  private readonly halting = new AbortController();
  private readonly signal: AbortSignal | undefined;
  private readonly waiting: AbortSignal;
  private answered = 0;
  private accepted: Accepted = { tokenLimit: "max_tokens", temperature: true };

  /** @param signal ends everything */
  constructor(options: ServiceOptions, signal?: AbortSignal) {
    this.options = options;
    this.baseUrl = checkedUrl(options.baseUrl);
    this.signal = signal;
    this.waiting = AbortSignal.any([this.halting.signal, ...(signal ? [signal] : [])]);
    const { apiKey } = options;
    if (apiKey && !/^[\x21-\x7e]+$/.test(apiKey)) {
      throw new Error(`The key in ${this.keyName} has characters that no key has, such as spaces`);
    }
    this.client = new OpenAI({
      baseURL: this.baseUrl,
      apiKey: apiKey || "none",
      adminAPIKey: null,
      ...(!apiKey && { defaultHeaders: { Authorization: null } }),
      maxRetries: 0,
      // Ours ends before.
      timeout: this.timeout + 1000,
      logLevel: "off",
    });
  }

  /** The model of a service that has a single one. @throws Error if it has several, or none */
  async onlyModel(): Promise<string> {
    const models = await this.withRetries(
      (signal) => this.client.get("/models", { signal }).withResponse(),
      readModels,
    );
    const [first, ...others] = models;
    if (first !== undefined && others.length === 0) return first;
    const some = models.slice(0, 5).map((id) => id.slice(0, 60));
    const more = models.length > some.length ? ", ..." : "";
    const has = first === undefined ? "no models" : `${models.length} models (${some.join(", ")}${more})`;
    throw new Error(`${this.baseUrl} has ${this.clean(has)}; say which with --model`);
  }

  /** @throws ServiceError if there is no answer, also not after asking again */
  async complete({ model, content, temperature, maxTokens }: ChatRequest): Promise<ChatAnswer> {
    const answer = await this.withRetries(
      (signal) =>
        this.client.chat.completions
          .create(
            {
              model,
              messages: [{ role: "user", content }],
              [this.accepted.tokenLimit]: maxTokens,
              ...(this.accepted.temperature && { temperature }),
            },
            { signal },
          )
          .withResponse(),
      readAnswer,
    );
    // A service that sends back what it was sent must not bring the key into the project.
    if (this.secret && answer.text.includes(this.secret)) throw this.failed("the answer has the key in it");
    return answer.refusal ? { ...answer, refusal: this.clean(answer.refusal) } : answer;
  }

  /** Nothing is asked any more; what is being answered may end. @param reason what whoever waits is told */
  halt(reason: ServiceError): void {
    this.halting.abort(reason);
  }

  private async withRetries<T>(send: (signal: AbortSignal) => Promise<Reply>, read: (data: unknown) => T): Promise<T> {
    for (let failures = 0; ; ) {
      await this.rest(this.pace.wait(this.waiting));
      const answeredBefore = this.answered;
      const sent = this.accepted;
      try {
        return await this.send(send, read);
      } catch (error) {
        this.signal?.throwIfAborted();
        if (this.adaptTo(error, sent)) continue;
        let failure = this.explained(error);
        // While others are answered, a limit of rate is no failure of this question.
        if (!failure.limited || this.answered === answeredBefore) failures++;
        const asked = error instanceof APIError && error.headers ? waitOf(error.headers, failure) : undefined;
        if (asked !== undefined && asked > longestPause && failure.kind === "passing") {
          const minutes = Math.ceil(asked / 60_000);
          failure = new ServiceError("final", `${failure.message}, and asks to wait ${minutes} minutes; go on then`);
        }
        if (failure.kind === "final") this.halt(failure);
        if (failure.kind !== "passing" || failures > (this.options.retries ?? 5)) throw failure;
        const wait = asked ?? retryDelay(Math.max(1, failures), this.options.firstDelay ?? 500);
        if (asked !== undefined || failure.limited) this.pause(wait);
        else await this.rest(sleep(wait, undefined, { signal: this.waiting }));
      }
    }
  }

  /** Waits. @throws what all waiting was ended with */
  private async rest(waiting: Promise<void>): Promise<void> {
    await waiting.catch(() => this.waiting.throwIfAborted());
  }

  /** One request, with a limit of time on all of it; the client's own ends where the answer's body begins. */
  private async send<T>(send: (signal: AbortSignal) => Promise<Reply>, read: (data: unknown) => T): Promise<T> {
    this.waiting.throwIfAborted();
    const ending = new AbortController();
    const end = () => ending.abort();
    this.signal?.addEventListener("abort", end, { once: true });
    const timer = setTimeout(end, this.timeout);
    this.requests++;
    try {
      const { data, response } = await send(ending.signal);
      const wait = rateLimitReset(response.headers);
      if (wait && wait <= longestPause) this.pause(wait);
      const value = this.read(data, read);
      this.answered++;
      return value;
    } catch (error) {
      if (ending.signal.aborted) throw this.failed(`no answer within ${this.timeout / 1000} s`);
      throw error;
    } finally {
      clearTimeout(timer);
      this.signal?.removeEventListener("abort", end);
    }
  }

  private read<T>(data: unknown, read: (data: unknown) => T): T {
    const value = typeof data === "string" ? parsed(data) : data;
    // Some services answer with an error, and the status of success.
    const failure = readError(value);
    if (failure) {
      const { message, code } = failure;
      throw statusError(Number(code) >= 400 ? Number(code) : 500, this.clean(message), code, this.name);
    }
    try {
      return read(value);
    } catch {
      throw this.failed(`what it answers is ${kindOf(value)}, not what OpenAI's API says; check the base URL`);
    }
  }

  /** Leaves out of the requests what the model refuses. @returns whether the same question is now sent differently */
  private adaptTo(error: unknown, sent: Accepted): boolean {
    if (!(error instanceof APIError) || error.status !== 400) return false;
    const detail = detailOf(error);
    const about = (field: string) => error.param === field || (!error.param && detail.includes(`'${field}'`));
    if (sent.tokenLimit === "max_tokens" && about("max_tokens") && detail.includes("max_completion_tokens")) {
      this.accepted = { ...this.accepted, tokenLimit: "max_completion_tokens" };
      return true;
    }
    if (!sent.temperature || !about("temperature")) return false;
    this.accepted = { ...this.accepted, temperature: false };
    return true;
  }

  private explained(error: unknown): ServiceError {
    if (error instanceof ServiceError) return error;
    if (error instanceof APIError && error.status) {
      return statusError(error.status, this.clean(detailOf(error)), error.code, this.name);
    }
    if (error instanceof SyntaxError) return this.failed("what it answers is no JSON");
    const failure = connectionError(error instanceof APIConnectionError ? (error.cause ?? error) : error, this.name);
    return new ServiceError(failure.kind, this.clean(failure.message));
  }

  private failed(how: string): ServiceError {
    return new ServiceError("passing", `${this.baseUrl} failed: ${how}`);
  }

  private pause(milliseconds: number): void {
    this.pace.pause(milliseconds);
    this.options.onPause?.(milliseconds);
  }

  /** Text of a service for a message: short, in one line, and without the key. */
  private clean(text: string): string {
    const line = (this.secret ? text.replaceAll(this.secret, "***") : text).replace(/\s+/g, " ").trim();
    if (line.startsWith("<")) return "an HTML page";
    return line.length > longestDetail ? `${line.slice(0, longestDetail)}...` : line;
  }

  private get timeout(): number {
    return this.options.timeout ?? 120_000;
  }

  private get keyName(): string {
    return this.options.apiKeyName ?? "OPENAI_API_KEY";
  }

  private get secret(): string | undefined {
    const { apiKey = "" } = this.options;
    return apiKey.length >= shortestSecret ? apiKey : undefined;
  }

  private get name(): ServiceName {
    const { baseUrl, keyName } = this;
    return { baseUrl, keyName, hasKey: Boolean(this.options.apiKey), known: this.answered > 0 };
  }
}

function waitOf(headers: Headers, { limited }: ServiceError): number | undefined {
  return retryAfter(headers) ?? (limited ? rateLimitReset(headers) : undefined);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function kindOf(value: unknown): string {
  if (typeof value !== "string") return "other JSON";
  if (value.trim() === "") return "empty";
  return value.trimStart().startsWith("<") ? "an HTML page" : "plain text";
}

/** @throws Error if it is no address to send texts to */
function checkedUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new Error("The base URL should begin with http:// or https://, for example http://127.0.0.1:8000/v1");
  }
  if (url.username || url.password || url.search || url.hash) {
    throw new Error("The base URL should have no name, password or ? in it; the key comes from the environment");
  }
  return text.replace(/\/+$/, "");
}
