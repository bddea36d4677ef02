/** Errors in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`, which its clients turn into classes of their own. */
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";

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
