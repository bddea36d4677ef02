/** Why a chat service did not answer, and whether asking again can help. */
import type { APIError } from "openai";
import { z } from "zod";

/**
 * - `passing`: asking again may help.
 * - `question`: this question is refused, others may be answered.
 * - `final`: no question will be answered.
 */
export type ServiceErrorKind = "passing" | "question" | "final";

export class ServiceError extends Error {
  override name = "ServiceError";
  readonly kind: ServiceErrorKind;
  /** Whether too much was asked in too short a time. */
  readonly limited: boolean;

  constructor(kind: ServiceErrorKind, message: string, limited = false) {
    super(message);
    this.kind = kind;
    this.limited = limited;
  }
}

/** What errors say of the service. */
export interface ServiceName {
  readonly baseUrl: string;
  /** The environment variable that the key comes from. */
  readonly keyName: string;
  readonly hasKey: boolean;
  /** Whether it has answered before. */
  readonly known: boolean;
}

/** Codes with which a limit is meant that time alone does not lift. */
const usedUp = new Set(["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]);

/** Of an answer with a status of failure. @param detail what the service says of it */
export function statusError(status: number, detail: string, code: unknown, service: ServiceName): ServiceError {
  const { baseUrl, keyName, hasKey } = service;
  const said = `${status}: ${detail}`;
  if (status === 401 && !hasKey) {
    return new ServiceError("final", `${baseUrl} wants a key (${said}); put it into the environment as ${keyName}`);
  }
  if (status === 401 || status === 403) {
    const key = hasKey ? `refuses the key in ${keyName}` : "refuses to answer without a key";
    return new ServiceError("final", `${baseUrl} ${key} (${said})`);
  }
  if (status === 402 || (typeof code === "string" && usedUp.has(code))) {
    return new ServiceError("final", `${baseUrl} wants to be paid (${said})`);
  }
  if (status === 404 || status === 405 || status === 410) {
    return new ServiceError(
      "final",
      `${baseUrl} has no such model, or no chat completions (${said}); check the model and the base URL, which often ends in /v1`,
    );
  }
  if (status === 408 || status === 409 || status === 425 || status === 429 || status >= 500) {
    return new ServiceError("passing", `${baseUrl} failed (${said})`, status === 429);
  }
  return new ServiceError("question", `${baseUrl} refuses the request (${said})`);
}

/** Problems of certificates and addresses do not pass; a server that was never there is not coming either. */
const finalCodes = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|ERR_INVALID|bad port)/;
const absentCodes = new Set(["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"]);

/** Of a connection that could not be made, or broke. */
export function connectionError(error: unknown, { baseUrl, known }: ServiceName): ServiceError {
  const { code, message } = innermost(error);
  const detail = code || message;
  if (code && absentCodes.has(code)) {
    return new ServiceError(
      known ? "passing" : "final",
      `${baseUrl} is not reached (${detail}); is the server running?`,
    );
  }
  if (finalCodes.test(detail)) return new ServiceError("final", `${baseUrl} is not reached (${detail})`);
  return new ServiceError("passing", `The connection to ${baseUrl} broke (${detail})`);
}

/** What the service says of a failure. */
export function detailOf(error: APIError): string {
  return error.message.replace(new RegExp(`^${error.status} `), "");
}

/** The error at the bottom of the causes, which is that of the system. */
function innermost(error: unknown): { readonly code?: string; readonly message: string } {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, cause } = error as NodeJS.ErrnoException & { cause?: unknown };
  // Where several addresses were tried, the first says enough.
  const deeper = error instanceof AggregateError ? error.errors[0] : cause;
  if (deeper instanceof Error) return innermost(deeper);
  return { message: error.message, ...(typeof code === "string" && { code }) };
}

// What a service with OpenAI's chat API answers.

export interface ChatAnswer {
  /** Empty if there is none. */
  readonly text: string;
  /** What the model says of why it does not answer. */
  readonly refusal?: string;
  readonly finishReason?: string;
  /** Undefined if the service does not count. */
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

/** @throws Error if it is no chat completion */
export function readAnswer(data: unknown): ChatAnswer {
  const { choices, usage } = completionSchema.parse(data);
  const { message, finish_reason: finishReason } = choices[0] ?? {};
  return {
    text: message?.content ?? "",
    ...(message?.refusal && { refusal: message.refusal }),
    ...(finishReason && { finishReason }),
    ...(usage && { usage: { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens } }),
  };
}

/** The names of a service's models. @throws Error if it is no list of models */
export function readModels(data: unknown): string[] {
  return modelsSchema.parse(data).data.map(({ id }) => id);
}

/** The error that an answer with the status of success may be. */
export function readError(data: unknown): { readonly message: string; readonly code?: unknown } | undefined {
  return errorSchema.safeParse(data).data?.error;
}
