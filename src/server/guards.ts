/** What stands around the routes of every app: who may ask before them, and what is said where they end. */
import { isIP } from "node:net";
import type { Context, Hono, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { Logger } from "pino";
import { requireApiKey } from "./api-keys.ts";
import { openAiError, shouldLog, toOpenAiError } from "./errors.ts";
import type { ServerEnv } from "./server-context.ts";

// * Keeps pages of other sites from using the server through a visitor's browser: by a name of theirs that they point at
// this machine (DNS rebinding), or by requests across sites.

/**
 * Refuses, with status 403, requests for a host that the server does not go by, and those that a browser makes for
 * a page of another origin. Programs, which send neither `Origin` nor `Sec-Fetch-Site`, are only asked for the host.
 *
 * @param allowed names of the server, each with a port ("localhost:8080") or for any port ("localhost"); "*" is any name.
 * An IP address is always allowed: who can point a name at this machine still comes with that name.
 * @param origins of pages that may ask although they come from elsewhere ("https://example.com"); "*" is any
 */
export function checkHost(allowed: readonly string[], origins: readonly string[] = []): MiddlewareHandler {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const pages = new Set(origins.map((origin) => origin.toLowerCase()));
  return async (context, next) => {
    const host = (context.req.header("host") ?? "").toLowerCase();
    if (!isExpected(host, names)) {
      const message =
        "The server does not go by the name in the request's Host header; allow the name where it is started";
      throw openAiError(403, { message, code: "host_not_allowed" });
    }
    if (!pages.has("*") && isFromElsewhere(context, host, pages)) {
      const message = "A page of another origin may not ask this server; allow its origin where the server is started";
      throw openAiError(403, { message, code: "origin_not_allowed" });
    }
    await next();
  };
}

function isExpected(host: string, names: ReadonlySet<string>): boolean {
  const parts = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:\d{1,5})?$/.exec(host);
  if (!parts) return false;
  const [, name = "", port = ""] = parts;
  return names.has("*") || isIP(name.replace(/[[\]]/g, "")) !== 0 || names.has(name) || names.has(name + port);
}

function isFromElsewhere({ req }: Context, host: string, pages: ReadonlySet<string>): boolean {
  const origin = req.header("origin")?.toLowerCase();
  // The scheme is not compared: before a proxy that speaks https the server itself sees http.
  if (origin !== undefined) return !pages.has(origin) && origin.replace(/^https?:\/\//, "") !== host;
  // Following a link to the server's page is no request of the page that has the link.
  const isLink =
    req.method === "GET" && req.header("sec-fetch-mode") === "navigate" && req.header("sec-fetch-dest") === "document";
  return req.header("sec-fetch-site") === "cross-site" && !isLink;
}

export interface GuardOptions {
  /** Keys of which a request must have one; without any, everybody may ask. */
  readonly apiKeys?: readonly string[];
  /** Names that the server goes by, besides IP addresses (default localhost); "*" is any. */
  readonly hosts?: readonly string[];
  /** Origins of other pages that may use the server. */
  readonly corsOrigins?: readonly string[];
  /** Aborted when no new requests are taken any more. */
  readonly stopping?: AbortSignal;
}

/** Puts what every request has to pass before the routes that are added after it. */
export function addGuards(app: Hono<ServerEnv>, options: GuardOptions): void {
  const { apiKeys = [], hosts = ["localhost"], corsOrigins = [], stopping } = options;
  app.use(checkHost(hosts, corsOrigins));
  if (corsOrigins.length > 0) app.use(cors({ origin: [...corsOrigins], exposeHeaders: ["retry-after"] }));
  if (stopping) app.use(refuseWhen(stopping));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: notAllowed }));
  if (apiKeys.length > 0) app.on("ALL", ["/v1/*", "/api/*", "/metrics"], requireApiKey(apiKeys));
}

/** What is answered where there is no route, or one fails. */
export function addErrorHandlers(app: Hono<ServerEnv>, log: Logger): void {
  app.notFound((c) => openAiError(404, { message: `There is no ${pathOf(c)}`, code: "not_found" }).getResponse());
  app.onError((error, c) => {
    // Of a client that went away nothing is left to tell, and nothing to repair.
    if (shouldLog(error) && !c.get("gone")?.aborted) log.error({ err: error }, "A request failed");
    return toOpenAiError(error).getResponse();
  });
}

/**
 * Refuses bodies that are too large, with status 413.
 * A declared length is looked at without touching the body: what was begun to be read could not be thrown away, and the
 * connection would break under the client's next request.
 */
export function limitBody(maxSize: number): MiddlewareHandler {
  const tooLarge = () => {
    const message = `The body has more than ${maxSize} bytes; send fewer or smaller images`;
    return openAiError(413, { message, code: "request_too_large" });
  };
  const limitUndeclared = bodyLimit({
    maxSize,
    onError: () => {
      throw tooLarge();
    },
  });
  return async (c, next) => {
    const length = c.req.header("content-length");
    if (length === undefined) return limitUndeclared(c, next);
    if (Number(length) > maxSize) throw tooLarge();
    await next();
  };
}

/** Requests on connections that were kept open get this when the server stops. */
function refuseWhen(stopping: AbortSignal): MiddlewareHandler {
  return async (_, next) => {
    if (stopping.aborted) {
      const message = "The server stops; ask again when it has started anew";
      throw openAiError(503, { message, code: "server_stopping" }, { connection: "close", "retry-after": "10" });
    }
    await next();
  };
}

function notAllowed(c: Context, methods: readonly string[]): Response {
  const allow = methods.join(", ");
  const message = `${c.req.path.slice(0, 100)} is asked with ${allow}, not with ${c.req.method}`;
  return openAiError(405, { message, code: "method_not_allowed" }, { allow }).getResponse();
}

function pathOf(c: Context): string {
  return `${c.req.method} ${c.req.path.slice(0, 100)}`;
}

// How many bytes of requests lie in memory at once: a body is read before its question has a place, and stays until the answer ends.

/** So many of the largest bodies are held together; of one client half of them, so that nobody keeps all others out. */
const largestBodies = 8;

/**
 * Refuses, with status 429, bodies for which there is no room beside those of requests that are not answered yet. What counts
 * is the length that a request declares, before any of it is read; without one it may become the largest.
 */
export function limitBodyMemory(maxBodyBytes: number): MiddlewareHandler<ServerEnv> {
  const most = largestBodies * maxBodyBytes;
  const ofClients = new Map<string, number>();
  let held = 0;
  const add = (client: string, bytes: number) => {
    held += bytes;
    const own = (ofClients.get(client) ?? 0) + bytes;
    if (own > 0) ofClients.set(client, own);
    else ofClients.delete(client);
  };
  return async (c, next) => {
    const client = c.get("client");
    const bytes = lengthOf(c) ?? maxBodyBytes;
    // What is larger is refused by its length, and never read.
    if (bytes > 0 && bytes <= maxBodyBytes) {
      if (held + bytes > most || (ofClients.get(client) ?? 0) + bytes > most / 2) {
        const message = "The requests that are not answered yet are too large together; ask again later";
        throw openAiError(429, { message, code: "rate_limit_exceeded" }, { "retry-after": "1" });
      }
      add(client, bytes);
      untilEnd(c, () => add(client, -bytes));
    }
    await next();
  };
}

/** Undefined if a body comes in pieces. A request that tells of none has none. */
function lengthOf({ req }: Context): number | undefined {
  return req.header("transfer-encoding") === undefined ? Number(req.header("content-length") ?? 0) : undefined;
}

/** Calls `release` once, when the answer has ended or the connection is gone. */
function untilEnd({ env: { incoming, outgoing } }: Context<ServerEnv>, close: () => void): void {
  const { socket } = incoming;
  const end = () => {
    socket.off("close", end);
    outgoing.off("close", end);
    close();
  };
  outgoing.once("close", end);
  // An answer that waits behind another one of its connection is not told when that breaks.
  socket.setMaxListeners(0).once("close", end);
}
