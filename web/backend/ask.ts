/** Asking the server from which the page came: its address, the key, and why it did not answer as it should. */
import { apiKey } from "./api-key.ts";

export interface ServerOptions {
  /** Where `v1/` and `api/` lie; default the folder of the page. */
  readonly base?: string;
  /** The key to send, if there is one now; default the one that was entered. */
  readonly key?: () => string | undefined;
  readonly fetch?: typeof fetch;
}

/** Nobody answered, or the server refused. */
export class AskError extends Error {
  override name = "AskError";
  /** Undefined if nobody answered. */
  readonly status: number | undefined;
  /** What the server said, if that was JSON. */
  readonly body: unknown;
  /** Seconds after which asking again makes sense, if the server said so. */
  readonly retryAfter: number | undefined;

  constructor(
    message: string,
    { status, body, retryAfter }: Partial<Pick<AskError, "status" | "body" | "retryAfter">>,
  ) {
    super(message);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/**
 * The server's answer, if it is a good one.
 * @param path relative, such as `v1/models`
 * @throws AskError, or the reason of the signal
 */
export async function askServer(
  path: string,
  init: RequestInit = {},
  { base = new URL(".", location.href).href, key = () => apiKey.value, fetch: get = fetch }: ServerOptions = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  const given = key();
  if (given) headers.set("authorization", `Bearer ${given}`);
  let response: Response;
  try {
    response = await get(new URL(path, base), { ...init, headers });
  } catch (problem) {
    init.signal?.throwIfAborted();
    throw new AskError(problem instanceof Error ? problem.message : String(problem), {});
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<AskError> {
  const { status, statusText, headers } = response;
  const body: unknown = await response.json().catch(() => undefined);
  const message = field(field(body, "error"), "message");
  return new AskError(typeof message === "string" ? message : `The server answered ${status} ${statusText}`, {
    status,
    body,
    retryAfter: seconds(headers.get("retry-after")),
  });
}

/** Seconds to wait, from a `retry-after` header in either form. */
function seconds(header: string | null): number | undefined {
  if (header === null || header === "") return undefined;
  const number = Number(header);
  if (Number.isFinite(number)) return Math.max(0, number);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}

/** A field of what may be anything. */
export function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
