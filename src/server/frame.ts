/** What stands around the routes of every app: who may ask before them, and what is said where they end. */
import type { Context, Hono, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { Logger } from "pino";
import { requireApiKey } from "./api-keys.ts";
import { isForTheLog, toOpenAiError } from "./failures.ts";
import { guardHost } from "./host-guard.ts";
import { openAiError } from "./openai-error.ts";
import type { ServerEnv } from "./service.ts";

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
  app.use(guardHost(hosts, corsOrigins));
  if (corsOrigins.length > 0) app.use(cors({ origin: [...corsOrigins], exposeHeaders: ["retry-after"] }));
  if (stopping) app.use(refuseWhen(stopping));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: notAllowed }));
  if (apiKeys.length > 0) app.on("ALL", ["/v1/*", "/api/*", "/metrics"], requireApiKey(apiKeys));
}

/** What is answered where there is no route, or one fails. */
export function addEndings(app: Hono<ServerEnv>, log: Logger): void {
  app.notFound((c) => openAiError(404, { message: `There is no ${pathOf(c)}`, code: "not_found" }).getResponse());
  app.onError((error, c) => {
    // Of a client that went away nothing is left to tell, and nothing to repair.
    if (isForTheLog(error) && !c.get("gone")?.aborted) log.error({ err: error }, "A request failed");
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
    const message = `The body has more than ${maxSize} bytes; send fewer or smaller pictures`;
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
