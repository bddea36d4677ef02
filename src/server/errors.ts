/** Errors in OpenAI's format, `{"error": {"message", "type", "param", "code"}}`, which its clients map to classes of their own. */

import { z } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { EngineLostError, RequestError, type RequestErrorCode } from "../errors.ts";

export interface ErrorDetails {
  /** For people. */
  readonly message: string;
  /** @default the type that OpenAI's API uses with the status */
  readonly type?: string;
  /** The invalid field of the request. */
  readonly param?: string | null;
  /** For programs. */
  readonly code?: string | null;
}

/** The response to a failed request. Throw it in a handler or middleware, or send `getResponse()`. */
export class OpenAiError extends HTTPException {
  /** The response body; in a stream, the data of the error event. */
  readonly body: { readonly error: Required<ErrorDetails> };
  private readonly headers: Readonly<Record<string, string>>;

  constructor(status: ContentfulStatusCode, details: ErrorDetails, headers: Readonly<Record<string, string>> = {}) {
    const { message, type = defaultType(status), param = null, code = null } = details;
    super(status, { message });
    this.body = { error: { message, type, param, code } };
    this.headers = headers;
  }

  /** Creates a new response each time, since one error may end several requests. */
  override getResponse(): Response {
    return Response.json(this.body, { status: this.status, headers: this.headers });
  }
}

/** @param headers of the response, for example `retry-after` */
export function openAiError(
  status: ContentfulStatusCode,
  details: ErrorDetails,
  headers?: Readonly<Record<string, string>>,
): OpenAiError {
  return new OpenAiError(status, details, headers);
}

function defaultType(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** Codes of OpenAI's API: for the URL, the image, and the download. */
export type ImageErrorCode =
  | "invalid_image_url"
  | "invalid_base64"
  | "image_too_large"
  | "invalid_image"
  | "failed_to_download_image";

/** An image is rejected. The message is sent to the client and must reveal nothing about this machine or its networks. */
export class ImageRejectedError extends Error {
  override name = "ImageRejectedError";
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export function tooManyBytes(maxBytes: number): ImageRejectedError {
  return new ImageRejectedError("image_too_large", `The image is larger than ${maxBytes} bytes. Reduce its size.`);
}

const restartSeconds = 5;

const requestErrorCodes: Readonly<Record<RequestErrorCode, string>> = {
  invalid_image: "invalid_image",
  context_length_exceeded: "context_length_exceeded",
  invalid_request: "invalid_value",
};

/** Converts an error for the client. Details of unexpected errors go to the log only. */
export function toOpenAiError(error: unknown): OpenAiError {
  if (error instanceof OpenAiError) return error;
  if (error instanceof RequestError)
    return openAiError(400, { message: error.message, code: requestErrorCodes[error.code] });
  if (error instanceof ImageRejectedError) return openAiError(400, { message: error.message, code: error.code });
  if (error instanceof EngineLostError) {
    const message = "The model process exited unexpectedly and is restarting. Retry the request.";
    return openAiError(503, { message, code: "engine_lost" }, { "retry-after": String(restartSeconds) });
  }
  if (error instanceof HTTPException && error.status === 415) {
    return openAiError(415, { message: "The body must be JSON with the header content-type: application/json." });
  }
  if (error instanceof HTTPException && error.status < 500)
    return openAiError(error.status, { message: error.message });
  return openAiError(500, { message: "Internal server error. The server's log has the details." });
}

/** Whether the error concerns the operator: the model process has crashed, or the error is unexpected. */
export function shouldLog(error: unknown): boolean {
  return error instanceof EngineLostError || toOpenAiError(error).status === 500;
}

/** The first error that a schema has found, with the path of its field. */
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

/** In a union, the alternative that matches deepest is taken as the intended one. */
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

/** Error responses in the OpenAPI document. */
export const errorResponses = {
  400: { description: "Invalid request", content },
  401: { description: "Missing or unknown API key", content },
  403: { description: "Host name or origin not allowed", content },
  404: { description: "Unknown model", content },
  413: { description: "Request body too large", content },
  415: { description: "Request body is not JSON", content },
  429: { description: "Queue full; `retry-after` says when to retry", content },
  500: { description: "Internal server error", content },
  503: { description: "The server is shutting down, or the model process is restarting", content },
  504: { description: "Timeout", content },
};
