/** Requests to the server that serves the page: address, API key, errors, and server-sent events. */
import { type EventSourceMessage, EventSourceParserStream } from "eventsource-parser/stream";
import { preference } from "../shell/store.ts";

/** Kept until the tab is closed, and never exported. */
export const apiKey = preference<string | undefined>(
  "key",
  (stored) => (typeof stored === "string" && stored !== "" ? stored : undefined),
  () => sessionStorage,
);

export interface ServerOptions {
  /** The folder of `v1/` and `api/`. @default the folder of the page */
  readonly base?: string;
  /** Returns the API key to send. @default the key that the user entered */
  readonly key?: () => string | undefined;
  readonly fetch?: typeof fetch;
}

/** The server did not respond, or responded with an error. */
export class HttpError extends Error {
  override name = "HttpError";
  /** Undefined without a response. */
  readonly status: number | undefined;
  /** The parsed body, if it was JSON. */
  readonly body: unknown;
  /** Seconds to wait before a retry, if the server sent them. */
  readonly retryAfter: number | undefined;

  constructor(
    message: string,
    { status, body, retryAfter }: Partial<Pick<HttpError, "status" | "body" | "retryAfter">> = {},
  ) {
    super(message);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/**
 * Fetches a path and returns the response if its status is ok.
 * @param path relative, such as `v1/models`
 * @throws HttpError, or the reason of the signal
 */
export async function request(
  path: string,
  init: RequestInit = {},
  { base = new URL(".", location.href).href, key = () => apiKey.value, fetch: fetchUrl = fetch }: ServerOptions = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  const bearer = key();
  if (bearer) headers.set("authorization", `Bearer ${bearer}`);
  let response: Response;
  try {
    response = await fetchUrl(new URL(path, base), { ...init, headers });
  } catch (error) {
    init.signal?.throwIfAborted();
    throw new HttpError(error instanceof Error ? error.message : String(error));
  }
  if (!response.ok) throw await errorFromResponse(response);
  return response;
}

/** Yields the server-sent events of a response. Leaving the loop early closes the connection. */
export async function* readEvents({ body }: Response): AsyncGenerator<EventSourceMessage, void> {
  if (!body) return;
  const reader = body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** A field of parsed JSON of unknown type. */
export function getField(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

async function errorFromResponse(response: Response): Promise<HttpError> {
  const { status, statusText, headers } = response;
  const body: unknown = await response.json().catch(() => undefined);
  const message = getField(getField(body, "error"), "message");
  return new HttpError(typeof message === "string" ? message : `The server responded ${status} ${statusText}`, {
    status,
    body,
    retryAfter: parseRetryAfter(headers.get("retry-after")),
  });
}

/** Seconds from a `retry-after` header, which holds a number or a date. */
function parseRetryAfter(header: string | null): number | undefined {
  if (header === null || header === "") return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}
