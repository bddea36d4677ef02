/** Client of a service with OpenAI's chat API that retries transient errors and respects rate limits. */
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { APIConnectionError, APIError } from "openai";
import { RateLimiter, rateLimitReset, retryAfter, retryDelay } from "./rate-limit.ts";
import {
  type ChatAnswer,
  connectionError,
  errorDetail,
  readAnswer,
  readError,
  readModels,
  ServiceError,
  type ServiceName,
  statusError,
} from "./service-error.ts";

export interface ServiceOptions {
  /** Base URL, for example `http://127.0.0.1:8000/v1`. */
  readonly baseUrl: string;
  /** Local servers often need none. The key is sent to the service only, and appears in no error. */
  readonly apiKey?: string;
  /** Environment variable of the key, for errors. @default OPENAI_API_KEY */
  readonly apiKeyName?: string;
  /** Time limit of a request in milliseconds. @default 120000 */
  readonly timeout?: number;
  /** Retries of a request after transient failures. @default 5 */
  readonly retries?: number;
  /** Delay of the first retry in milliseconds; it doubles with each one. @default 500 */
  readonly firstDelay?: number;
  /** Called when all requests pause at the service's request, with the milliseconds. */
  readonly onPause?: (milliseconds: number) => void;
}

export interface ChatRequest {
  readonly model: string;
  readonly content: string;
  readonly temperature: number;
  readonly maxTokens: number;
}

/** Longest pause for a rate limit, in milliseconds. */
const longestPause = 15 * 60_000;
/** Shorter keys are placeholders ("none", "ollama"), not secrets. */
const shortestSecret = 8;
const longestDetail = 200;

/** Parameters that the model accepts: newer models of OpenAI renamed the token limit, and some reject a temperature. */
interface Accepted {
  readonly tokenLimit: "max_tokens" | "max_completion_tokens";
  readonly temperature: boolean;
}

interface Reply {
  readonly data: unknown;
  readonly response: Response;
}

/** A chat service; all requests share its rate limits. */
export class ChatService {
  readonly baseUrl: string;
  /** Number of requests that were sent. */
  requests = 0;
  private readonly options: ServiceOptions;
  private readonly client: OpenAI;
  private readonly pace = new RateLimiter();
  /** Ends all waiting when no request can succeed any more. */
  private readonly halting = new AbortController();
  private readonly signal?: AbortSignal;
  private readonly waiting: AbortSignal;
  private answered = 0;
  private accepted: Accepted = { tokenLimit: "max_tokens", temperature: true };

  /** @param signal aborts all requests */
  constructor(options: ServiceOptions, signal?: AbortSignal) {
    this.options = options;
    this.baseUrl = checkUrl(options.baseUrl);
    this.signal = signal;
    this.waiting = AbortSignal.any([this.halting.signal, ...(signal ? [signal] : [])]);
    const { apiKey } = options;
    if (apiKey && !/^[\x21-\x7e]+$/.test(apiKey)) {
      throw new Error(`The key in ${this.keyName} contains invalid characters, such as spaces`);
    }
    this.client = new OpenAI({
      baseURL: this.baseUrl,
      apiKey: apiKey || "none",
      adminAPIKey: null,
      defaultHeaders: apiKey ? undefined : { Authorization: null },
      maxRetries: 0,
      // Our own time limit ends first.
      timeout: this.timeout + 1000,
      logLevel: "off",
    });
  }

  /** The model of a service with a single model. @throws Error if it has none or several */
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
    throw new Error(`${this.baseUrl} has ${this.clean(has)}; select one with --model`);
  }

  /** Sends a request, with retries. @throws ServiceError if there is no answer */
  async complete({ model, content, temperature, maxTokens }: ChatRequest): Promise<ChatAnswer> {
    const answer = await this.withRetries(
      (signal) =>
        this.client.chat.completions
          .create(
            {
              model,
              messages: [{ role: "user", content }],
              [this.accepted.tokenLimit]: maxTokens,
              temperature: this.accepted.temperature ? temperature : undefined,
            },
            { signal },
          )
          .withResponse(),
      readAnswer,
    );
    // A service that echoes the key must not bring it into the project.
    if (this.secret && answer.text.includes(this.secret)) throw this.failed("the answer contains the API key");
    return answer.refusal ? { ...answer, refusal: this.clean(answer.refusal) } : answer;
  }

  /** Sends no more requests; those in flight may finish. @param reason error of all waiting calls */
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
        let failure = this.toServiceError(error);
        // A rate limit does not count as a failure while other requests succeed.
        if (!failure.limited || this.answered === answeredBefore) failures++;
        const requested =
          error instanceof APIError && error.headers ? requestedDelay(error.headers, failure) : undefined;
        if (requested !== undefined && requested > longestPause && failure.kind === "transient") {
          const minutes = Math.ceil(requested / 60_000);
          failure = new ServiceError(
            "final",
            `${failure.message}. Its rate limit resets in ${minutes} minutes; continue then`,
          );
        }
        if (failure.kind === "final") this.halt(failure);
        if (failure.kind !== "transient" || failures > (this.options.retries ?? 5)) throw failure;
        const wait = requested ?? retryDelay(Math.max(1, failures), this.options.firstDelay ?? 500);
        if (requested !== undefined || failure.limited) this.pause(wait);
        else await this.rest(sleep(wait, undefined, { signal: this.waiting }));
      }
    }
  }

  /** Waits. @throws the reason of `halt` or of the signal */
  private async rest(waiting: Promise<void>): Promise<void> {
    await waiting.catch(() => this.waiting.throwIfAborted());
  }

  /** Sends one request. The time limit includes the body of the response, unlike that of the client. */
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
    const value = typeof data === "string" ? parseIfJson(data) : data;
    // Some services send errors with a status of success.
    const failure = readError(value);
    if (failure) {
      const { message, code } = failure;
      throw statusError(Number(code) >= 400 ? Number(code) : 500, this.clean(message), code, this.name);
    }
    try {
      return read(value);
    } catch {
      throw this.failed(
        `the response is ${describeKind(value)} instead of a response of OpenAI's API; check the base URL`,
      );
    }
  }

  /** Adapts the parameters if the model has rejected one. @returns whether to send the request again */
  private adaptTo(error: unknown, sent: Accepted): boolean {
    if (!(error instanceof APIError) || error.status !== 400) return false;
    const detail = errorDetail(error);
    const about = (field: string) => error.param === field || (!error.param && detail.includes(`'${field}'`));
    if (sent.tokenLimit === "max_tokens" && about("max_tokens") && detail.includes("max_completion_tokens")) {
      this.accepted = { ...this.accepted, tokenLimit: "max_completion_tokens" };
      return true;
    }
    if (!sent.temperature || !about("temperature")) return false;
    this.accepted = { ...this.accepted, temperature: false };
    return true;
  }

  private toServiceError(error: unknown): ServiceError {
    if (error instanceof ServiceError) return error;
    if (error instanceof APIError && error.status) {
      return statusError(error.status, this.clean(errorDetail(error)), error.code, this.name);
    }
    if (error instanceof SyntaxError) return this.failed("the response is not JSON");
    const failure = connectionError(error instanceof APIConnectionError ? (error.cause ?? error) : error, this.name);
    return new ServiceError(failure.kind, this.clean(failure.message));
  }

  private failed(how: string): ServiceError {
    return new ServiceError("transient", `${this.baseUrl} failed: ${how}`);
  }

  private pause(milliseconds: number): void {
    this.pace.pause(milliseconds);
    this.options.onPause?.(milliseconds);
  }

  /** Shortens a text of the service to one line without the key, for messages. */
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

function requestedDelay(headers: Headers, { limited }: ServiceError): number | undefined {
  return retryAfter(headers) ?? (limited ? rateLimitReset(headers) : undefined);
}

function parseIfJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function describeKind(value: unknown): string {
  if (typeof value !== "string") return "other JSON";
  if (value.trim() === "") return "empty";
  return value.trimStart().startsWith("<") ? "an HTML page" : "plain text";
}

/** @throws Error if the base URL is invalid */
function checkUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new Error("The base URL must start with http:// or https://, for example http://127.0.0.1:8000/v1");
  }
  if (url.username || url.password || url.search || url.hash) {
    throw new Error(
      "The base URL must not contain a user name, password, query or fragment; pass the key in the environment",
    );
  }
  return text.replace(/\/+$/, "");
}
