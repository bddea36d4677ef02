/** From whatever went wrong to what a client is told of it. */

import { z } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { EngineLostError, RequestError } from "../engine/engine.ts";

// Errors in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`, which its clients turn into classes of their own.

/** What a client is told. The message is read by people; the code, where there is one, by programs. */
export interface ErrorDetails {
  readonly message: string;
  /** By default what OpenAI says with the status. */
  readonly type?: string;
  /** The field of the request that is wrong. */
  readonly param?: string | null;
  readonly code?: string | null;
}

/** The answer to a request that fails: thrown in a handler or middleware it ends the request, and `getResponse()` is the answer itself. */
export class OpenAiError extends HTTPException {
  /** The body, which is also what an error in the middle of a stream looks like. */
  readonly body: { readonly error: Required<ErrorDetails> };
  private readonly headers: Readonly<Record<string, string>>;

  constructor(status: ContentfulStatusCode, details: ErrorDetails, headers: Readonly<Record<string, string>> = {}) {
    const { message, type = typeOf(status), param = null, code = null } = details;
    super(status, { message });
    this.body = { error: { message, type, param, code } };
    this.headers = headers;
  }

  /** A new response each time: one error may end several requests. */
  override getResponse(): Response {
    return Response.json(this.body, { status: this.status, headers: this.headers });
  }
}

/**
 * An error to throw.
 *
 * @param headers of the answer, for example `retry-after`
 */
export function openAiError(
  status: ContentfulStatusCode,
  details: ErrorDetails,
  headers?: Readonly<Record<string, string>>,
): OpenAiError {
  return new OpenAiError(status, details, headers);
}

function typeOf(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

// Why the server does not take an image, in words that are fit for whoever sent it.

/** Codes as OpenAI has them: of the URL itself, of what it holds, and of fetching it. */
export type ImageErrorCode =
  | "invalid_image_url"
  | "invalid_base64"
  | "image_too_large"
  | "invalid_image"
  | "failed_to_download_image";

/** An image is refused. The message says nothing of this machine or of its networks. */
export class ImageRejectedError extends Error {
  override name = "ImageRefusedError";
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export function tooManyBytes(maxBytes: number): ImageRejectedError {
  return new ImageRejectedError("image_too_large", `The image has more than ${maxBytes} bytes; make it smaller first`);
}

const secondsToRestart = 5;

const questionCodes: Readonly<Record<RequestError["code"], string>> = {
  image: "invalid_image",
  length: "context_length_exceeded",
  value: "invalid_value",
};

/** The error as a client may see it; of what nobody expected only that it happened. */
export function toOpenAiError(error: unknown): OpenAiError {
  if (error instanceof OpenAiError) return error;
  if (error instanceof RequestError)
    return openAiError(400, { message: error.message, code: questionCodes[error.code] });
  if (error instanceof ImageRejectedError) return openAiError(400, { message: error.message, code: error.code });
  if (error instanceof EngineLostError) {
    const message = "The model broke down and starts again; ask once more";
    return openAiError(503, { message, code: "engine_lost" }, { "retry-after": String(secondsToRestart) });
  }
  if (error instanceof HTTPException && error.status === 415) {
    return openAiError(415, { message: "The body should be JSON, with the header content-type: application/json" });
  }
  if (error instanceof HTTPException && error.status < 500)
    return openAiError(error.status, { message: error.message });
  return openAiError(500, { message: "Something went wrong in the server; its log says what" });
}

/** Whether whoever runs the server should know of it: the model broke down, or something that nobody expected. */
export function shouldLog(error: unknown): boolean {
  return error instanceof EngineLostError || toOpenAiError(error).status === 500;
}

/** What a schema found wrong first, with the place of it. */
export function invalidRequest({ issues }: z.ZodError): OpenAiError {
  const issue = deepest(issues);
  const param = issue ? pathText(issue.path) : "";
  return openAiError(400, {
    message: `${param === "" ? "The request" : param}: ${issue?.message ?? "is not valid"}`,
    param: param === "" ? null : param,
    code: "invalid_value",
  });
}

type Issue = z.ZodError["issues"][number];

/** Of the alternatives of a union, that which fits furthest is what was meant. */
function deepest(issues: readonly Issue[]): Issue | undefined {
  const [first] = issues;
  if (first?.code !== "invalid_union") return first;
  const branches = first.errors
    .flatMap((branch) => deepest(branch) ?? [])
    .sort((a, b) => b.path.length - a.path.length);
  const [best] = branches;
  if (!best || best.path.length === 0) return first;
  return { ...best, path: [...first.path, ...best.path] };
}

function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    return text === "" ? String(key) : `${text}.${String(key)}`;
  }, "");
}

// The parts of the OpenAPI document that several routes share.

const error = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  })
  .openapi("Error");

const content = { "application/json": { schema: error } };

/** How a request can fail. */
export const errorResponses = {
  400: { description: "Something is wrong with the request", content },
  401: { description: "The API key is missing or unknown", content },
  403: { description: "The Host header names another server, or a page of another origin asks", content },
  404: { description: "There is no such model", content },
  413: { description: "The body is too large", content },
  415: { description: "The body is not JSON", content },
  429: { description: "Too many questions wait already; `retry-after` says when to ask again", content },
  500: { description: "Something went wrong in the server", content },
  503: { description: "The server stops, or the model starts again", content },
  504: { description: "The answer took too long", content },
};
