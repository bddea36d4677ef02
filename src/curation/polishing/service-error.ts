/** Errors of chat services, and parsing of their responses. */
import type { APIError } from "openai";
import { z } from "zod";

/**
 * - `transient`: a retry may succeed.
 * - `request`: this request is rejected, others may succeed.
 * - `final`: no request will succeed.
 */
export type ServiceErrorKind = "transient" | "request" | "final";

/** A chat service did not answer. */
export class ServiceError extends Error {
  override name = "ServiceError";
  readonly kind: ServiceErrorKind;
  /** Whether a rate limit was exceeded. */
  readonly limited: boolean;

  constructor(kind: ServiceErrorKind, message: string, limited = false) {
    super(message);
    this.kind = kind;
    this.limited = limited;
  }
}

/** The service, as errors describe it. */
export interface ServiceName {
  readonly baseUrl: string;
  /** The environment variable of the key. */
  readonly keyName: string;
  readonly hasKey: boolean;
  /** Whether it has answered a request before. */
  readonly known: boolean;
}

/** Error codes of limits that waiting does not lift. */
const usedUp = new Set(["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]);

/** The error for an HTTP status. @param detail message of the service */
export function statusError(status: number, detail: string, code: unknown, service: ServiceName): ServiceError {
  const { baseUrl, keyName, hasKey } = service;
  const reason = `${status}: ${detail}`;
  if (status === 401 && !hasKey) {
    return new ServiceError(
      "final",
      `${baseUrl} requires an API key (${reason}); set the environment variable ${keyName}`,
    );
  }
  if (status === 401 || status === 403) {
    const key = hasKey ? `rejected the API key in ${keyName}` : "denied access without an API key";
    return new ServiceError("final", `${baseUrl} ${key} (${reason})`);
  }
  if (status === 402 || (typeof code === "string" && usedUp.has(code))) {
    return new ServiceError("final", `${baseUrl} requires payment (${reason})`);
  }
  if (status === 404 || status === 405 || status === 410) {
    return new ServiceError(
      "final",
      `${baseUrl} has no such model or no chat completions (${reason}); check the model and the base URL, which usually ends in /v1`,
    );
  }
  if (status === 408 || status === 409 || status === 425 || status === 429 || status >= 500) {
    return new ServiceError("transient", `${baseUrl} failed (${reason})`, status === 429);
  }
  return new ServiceError("request", `${baseUrl} rejected the request (${reason})`);
}

/** Problems with certificates and addresses are final; so is an unreachable server that never answered. */
const finalCodes = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|ERR_INVALID|bad port)/;
const absentCodes = new Set(["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"]);

/** The error for a connection that failed. */
export function connectionError(error: unknown, { baseUrl, known }: ServiceName): ServiceError {
  const { code, message } = innermost(error);
  const detail = code || message;
  if (code && absentCodes.has(code)) {
    return new ServiceError(
      known ? "transient" : "final",
      `${baseUrl} cannot be reached (${detail}); is the server running?`,
    );
  }
  if (finalCodes.test(detail)) return new ServiceError("final", `${baseUrl} cannot be reached (${detail})`);
  return new ServiceError("transient", `The connection to ${baseUrl} was lost (${detail})`);
}

/** The message of the service, without the status that the client prepends. */
export function errorDetail(error: APIError): string {
  return error.message.replace(new RegExp(`^${error.status} `), "");
}

/** The innermost cause, which is the system error. */
function innermost(error: unknown): { readonly code?: string; readonly message: string } {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, cause } = error as NodeJS.ErrnoException & { cause?: unknown };
  // If several addresses were tried, report the first.
  const deeper = error instanceof AggregateError ? error.errors[0] : cause;
  if (deeper instanceof Error) return innermost(deeper);
  return { message: error.message, code: typeof code === "string" ? code : undefined };
}

/** An answer of a chat model. */
export interface ChatAnswer {
  /** Empty if the answer has no text. */
  readonly text: string;
  /** The model's reason for refusing to answer. */
  readonly refusal?: string;
  readonly finishReason?: string;
  /** Undefined if the service does not report it. */
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
}

const count = z.int().nonnegative();
const completionSchema = z.object({
  choices: z.array(
    z.object({
      message: z.object({ content: z.string().nullish(), refusal: z.string().nullish().catch(undefined) }),
      finish_reason: z.string().nullish().catch(undefined),
    }),
  ),
  usage: z.object({ prompt_tokens: count, completion_tokens: count }).nullish().catch(undefined),
});
const modelsSchema = z.object({ data: z.array(z.object({ id: z.string() })) });
const errorSchema = z.object({ error: z.looseObject({ message: z.string(), code: z.unknown() }) });

/** Reads a chat completion. @throws Error if it is not one */
export function readAnswer(data: unknown): ChatAnswer {
  const { choices, usage } = completionSchema.parse(data);
  const { message, finish_reason: finishReason } = choices[0] ?? {};
  return {
    text: message?.content ?? "",
    refusal: message?.refusal || undefined,
    finishReason: finishReason || undefined,
    usage: usage ? { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens } : undefined,
  };
}

/** Reads the names of a service's models. @throws Error if it is not a list of models */
export function readModels(data: unknown): string[] {
  return modelsSchema.parse(data).data.map(({ id }) => id);
}

/** Reads an error that was sent with a status of success; undefined if it is not one. */
export function readError(data: unknown): { readonly message: string; readonly code?: unknown } | undefined {
  return errorSchema.safeParse(data).data?.error;
}
