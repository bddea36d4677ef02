/** The HTTP server's routes and what stands before them, as one Hono app. */
import { setMaxListeners } from "node:events";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context, Hono, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import { type Logger, pino } from "pino";
import type { Engine } from "../chat/engine/engine.ts";
import { account } from "./account.ts";
import { Admission, type AdmissionOptions } from "./admission.ts";
import { requireApiKey } from "./api-keys.ts";
import { addChatCompletions } from "./chat-completions.ts";
import { addEmbeddings } from "./embeddings.ts";
import { invalidRequest, toOpenAiError } from "./failures.ts";
import { guardHost } from "./host-guard.ts";
import { ServerMetrics } from "./metrics.ts";
import { addModels } from "./models.ts";
import { openAiError } from "./openai-error.ts";
import { addPage } from "./page.ts";
import { runsApi } from "./runs.ts";
import type { ServerEnv, Service } from "./service.ts";

export interface AppOptions extends Partial<AdmissionOptions> {
  /** Keys of which a request must have one; without any, everybody may ask. */
  readonly apiKeys?: readonly string[];
  /** Names that the server goes by, besides IP addresses (default localhost); "*" is any. */
  readonly hosts?: readonly string[];
  /** Origins of other pages that may use the server. */
  readonly corsOrigins?: readonly string[];
  /** Longest time for an answer (default 300). */
  readonly timeoutSeconds?: number;
  /** How long a client may leave a stream unread (default 30). */
  readonly writeTimeoutSeconds?: number;
  /** Largest body of a request, pictures included (default 32 MB). */
  readonly maxBodyBytes?: number;
  /** Most pixels of all pictures of a request together (default 50 million). */
  readonly maxPixels?: number;
  /** Most pictures of a request (default 16). */
  readonly maxPictures?: number;
  /** Whether pictures are fetched from http and https addresses (default false). */
  readonly allowRemotePictures?: boolean;
  /** Folder of training runs, whose curves the page shows. */
  readonly runsFolder?: string;
  /** Folder of the built page. */
  readonly pageFolder?: string;
  readonly log?: Logger;
  /** Aborted when no new requests are taken any more. */
  readonly stopping?: AbortSignal;
  /** Aborted when running answers must end; the reason is what their clients are told. */
  readonly ended?: AbortSignal;
}

/** An app that answers with `engine`. It needs the Node.js server of `@hono/node-server`. */
export function createApp(engine: Engine, options: AppOptions = {}): Hono<ServerEnv> {
  const { apiKeys = [], corsOrigins = [], maxBodyBytes = 32_000_000, stopping } = options;
  const service = createService(engine, options);
  const app = new OpenAPIHono<ServerEnv>({
    defaultHook: (result) => {
      if (!result.success) throw invalidRequest(result.error);
    },
  });

  app.use(account(service), guardHost(options.hosts ?? ["localhost"], corsOrigins));
  if (corsOrigins.length > 0) app.use(cors({ origin: [...corsOrigins], exposeHeaders: ["retry-after"] }));
  if (stopping) app.use(refuseWhen(stopping));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: notAllowed }));
  if (apiKeys.length > 0) app.on("ALL", ["/v1/*", "/api/*", "/metrics"], requireApiKey(apiKeys));
  app.use("/v1/*", identify(apiKeys.length > 0), limitBody(maxBodyBytes));

  addModels(app, service);
  addChatCompletions(app, service);
  addEmbeddings(app, service);
  app.get("/metrics", async (c) =>
    c.body(await service.metrics.render(), 200, { "content-type": service.metrics.contentType }),
  );
  if (apiKeys.length > 0) {
    app.openAPIRegistry.registerComponent("securitySchemes", "apiKey", { type: "http", scheme: "bearer" });
  }
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: { title: `minigpt4: ${engine.model.name}`, version: "1.0.0" },
    ...(apiKeys.length > 0 && { security: [{ apiKey: [] }] }),
  });
  if (options.runsFolder !== undefined) {
    if (stopping) app.use("/api/runs/*", cutWhen(stopping));
    app.route("/api/runs", runsApi(options.runsFolder));
  }
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);

  app.notFound((c) => openAiError(404, { message: `There is no ${pathOf(c)}`, code: "not_found" }).getResponse());
  app.onError((error, c) => {
    const told = toOpenAiError(error);
    // Of a client that went away nothing is left to tell, and nothing to repair.
    if (told.status === 500 && !c.get("gone")?.aborted) service.log.error({ err: error }, "A request failed");
    return told.getResponse();
  });
  return app;
}

function createService(engine: Engine, options: AppOptions): Service {
  const { maxConcurrent = 8, maxQueue = 64, maxBodyBytes = 32_000_000 } = options;
  const admission = new Admission({ maxConcurrent, maxQueue });
  const { ended = new AbortController().signal } = options;
  // Every request that is answered listens; to Node.js more than ten look like a leak.
  setMaxListeners(0, ended);
  return {
    engine,
    admission,
    metrics: new ServerMetrics(() => admission),
    log: options.log ?? pino({ level: "silent" }),
    pictures: {
      allowRemote: options.allowRemotePictures ?? false,
      maxBytes: maxBodyBytes,
      maxPixels: options.maxPixels ?? 50_000_000,
      maxPictures: options.maxPictures ?? 16,
    },
    created: Math.floor(Date.now() / 1000),
    timeoutSeconds: options.timeoutSeconds ?? 300,
    writeTimeoutSeconds: options.writeTimeoutSeconds ?? 30,
    ended,
  };
}

/** Notes who asks, and how to learn that they went away. */
function identify(byKey: boolean): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    // Without keys anybody could name a new one with each request, and be a new client each time.
    const key = byKey ? c.req.header("authorization") : undefined;
    c.set("client", key ?? c.env.incoming.socket.remoteAddress ?? "unknown");
    // Before the body is read: what takes its place afterwards may have a signal of its own.
    c.set("gone", c.req.raw.signal);
    await next();
  };
}

/**
 * A declared length is looked at without touching the body: what was begun to be read could not be thrown away, and the
 * connection would break under the client's next request.
 */
function limitBody(maxSize: number): MiddlewareHandler {
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

/** Those who watch a run would do so for ever; they come back when the server does. */
function cutWhen(stopping: AbortSignal): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const { outgoing } = c.env;
    const cut = () => outgoing.destroy();
    stopping.addEventListener("abort", cut);
    outgoing.once("close", () => stopping.removeEventListener("abort", cut));
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
