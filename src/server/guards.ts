/** Middleware around the routes of every app: access checks, body limits and error handlers. */
import { isIP } from "node:net";
import type { Context, Hono, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { Logger } from "pino";
import { requireApiKey } from "./api-keys.ts";
import { openAiError, shouldLog, toOpenAiError } from "./errors.ts";
import type { ServerEnv } from "./server-context.ts";

export interface GuardOptions {
  /** API keys, one of which every request must send. @default none, all requests are allowed */
  readonly apiKeys?: readonly string[];
  /** Host names of the server besides IP addresses; "*" allows any. @default ["localhost"] */
  readonly hosts?: readonly string[];
  /** Origins of other sites whose pages may use the server; "*" allows any. @default [] */
  readonly corsOrigins?: readonly string[];
  /** Once aborted, new requests are rejected with status 503. */
  readonly drainSignal?: AbortSignal;
}

/** Adds the checks that every request passes before the routes that are added later. */
export function addGuards(app: Hono<ServerEnv>, options: GuardOptions): void {
  const { apiKeys = [], hosts = ["localhost"], corsOrigins = [], drainSignal } = options;
  app.use(checkHost(hosts, corsOrigins));
  if (corsOrigins.length > 0) app.use(cors({ origin: [...corsOrigins], exposeHeaders: ["retry-after"] }));
  if (drainSignal) app.use(rejectAfter(drainSignal));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: notAllowed }));
  if (apiKeys.length > 0) app.on("ALL", ["/v1/*", "/api/*", "/metrics"], requireApiKey(apiKeys));
}

/** Adds the responses to unknown paths and to errors. */
export function addErrorHandlers(app: Hono<ServerEnv>, log: Logger): void {
  app.notFound((c) => {
    const message = `There is no route ${c.req.method} ${c.req.path.slice(0, 100)}.`;
    return openAiError(404, { message, code: "not_found" }).getResponse();
  });
  app.onError((error, c) => {
    // After a client has disconnected there is nobody to answer, and nothing to fix.
    if (shouldLog(error) && !c.get("disconnected")?.aborted) log.error({ err: error }, "A request failed");
    return toOpenAiError(error).getResponse();
  });
}

/**
 * Rejects, with status 403, requests for a foreign host name (DNS rebinding) and requests that a browser sends for a page of
 * another origin. Programs send neither `Origin` nor `Sec-Fetch-Site`; only their host is checked.
 *
 * @param allowed names of the server, with a port ("localhost:8080") or for any port ("localhost"); "*" allows any.
 * IP addresses are always allowed: an attack by DNS rebinding has to use a name.
 * @param origins other origins whose pages are allowed ("https://example.com"); "*" allows any
 */
export function checkHost(allowed: readonly string[], origins: readonly string[] = []): MiddlewareHandler {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const allowedOrigins = new Set(origins.map((origin) => origin.toLowerCase()));
  return async (context, next) => {
    const host = (context.req.header("host") ?? "").toLowerCase();
    if (!isAllowedHost(host, names)) {
      const message =
        "The Host header of the request is not a name of this server. Allow it when you start the server.";
      throw openAiError(403, { message, code: "host_not_allowed" });
    }
    if (!allowedOrigins.has("*") && isCrossOrigin(context, host, allowedOrigins)) {
      const message = "Pages of this origin may not use the server. Allow the origin when you start the server.";
      throw openAiError(403, { message, code: "origin_not_allowed" });
    }
    await next();
  };
}

function isAllowedHost(host: string, names: ReadonlySet<string>): boolean {
  const parts = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:\d{1,5})?$/.exec(host);
  if (!parts) return false;
  const [, name = "", port = ""] = parts;
  return names.has("*") || isIP(name.replace(/[[\]]/g, "")) !== 0 || names.has(name) || names.has(name + port);
}

function isCrossOrigin({ req }: Context, host: string, allowedOrigins: ReadonlySet<string>): boolean {
  const origin = req.header("origin")?.toLowerCase();
  // The scheme is not compared: behind an HTTPS proxy the server itself sees http.
  if (origin !== undefined) return !allowedOrigins.has(origin) && origin.replace(/^https?:\/\//, "") !== host;
  // A visitor who follows a link to the server's page is allowed.
  const isLink =
    req.method === "GET" && req.header("sec-fetch-mode") === "navigate" && req.header("sec-fetch-dest") === "document";
  return req.header("sec-fetch-site") === "cross-site" && !isLink;
}

/**
 * Rejects bodies that are too large, with status 413. If the request declares its length, the body is not touched: a body read
 * in part cannot be discarded, and would break the connection's next request.
 */
export function limitBody(maxSize: number): MiddlewareHandler {
  const tooLarge = () => {
    const message = `The request body is larger than ${maxSize} bytes. Send fewer or smaller images.`;
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

/** Rejects requests on connections that are still open when the server shuts down. */
function rejectAfter(drainSignal: AbortSignal): MiddlewareHandler {
  return async (_, next) => {
    if (drainSignal.aborted) {
      const message = "The server is shutting down. Retry later.";
      throw openAiError(503, { message, code: "server_stopping" }, { connection: "close", "retry-after": "10" });
    }
    await next();
  };
}

function notAllowed(c: Context, methods: readonly string[]): Response {
  const allow = methods.join(", ");
  const message = `${c.req.path.slice(0, 100)} accepts ${allow}, not ${c.req.method}.`;
  return openAiError(405, { message, code: "method_not_allowed" }, { allow }).getResponse();
}

/** Memory for request bodies, in bodies of the maximum size. One client gets half of it at most. */
const maxBodiesInMemory = 8;

/**
 * Bounds the memory of request bodies, which are read before a request gets its slot and stay until its response ends: rejects,
 * with status 429, what exceeds the bound. Counts the declared length before a body is read, or the maximum without one.
 */
export function limitBodyMemory(maxBodyBytes: number): MiddlewareHandler<ServerEnv> {
  const maxTotal = maxBodiesInMemory * maxBodyBytes;
  const bytesByClient = new Map<string, number>();
  let total = 0;
  const add = (client: string, bytes: number) => {
    total += bytes;
    const ofClient = (bytesByClient.get(client) ?? 0) + bytes;
    if (ofClient > 0) bytesByClient.set(client, ofClient);
    else bytesByClient.delete(client);
  };
  return async (c, next) => {
    const client = c.get("client");
    const bytes = declaredLength(c) ?? maxBodyBytes;
    // A larger body is rejected by its length and never read.
    if (bytes > 0 && bytes <= maxBodyBytes) {
      if (total + bytes > maxTotal || (bytesByClient.get(client) ?? 0) + bytes > maxTotal / 2) {
        const message = "The bodies of the running and waiting requests are too large together. Retry later.";
        throw openAiError(429, { message, code: "rate_limit_exceeded" }, { "retry-after": "1" });
      }
      add(client, bytes);
      onResponseEnd(c, () => add(client, -bytes));
    }
    await next();
  };
}

/** Undefined for a chunked body; 0 if the request declares none. */
function declaredLength({ req }: Context): number | undefined {
  return req.header("transfer-encoding") === undefined ? Number(req.header("content-length") ?? 0) : undefined;
}

/** Calls `callback` once, when the response has ended or the connection is closed. */
function onResponseEnd({ env: { incoming, outgoing } }: Context<ServerEnv>, callback: () => void): void {
  const { socket } = incoming;
  const onClose = () => {
    socket.off("close", onClose);
    outgoing.off("close", onClose);
    callback();
  };
  outgoing.once("close", onClose);
  // A pipelined response that waits for another one emits no event when the connection is closed.
  socket.setMaxListeners(0).once("close", onClose);
}
