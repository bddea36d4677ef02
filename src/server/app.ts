/** The HTTP API as a Hono app: middleware, then routes. */
import { setMaxListeners } from "node:events";
import { OpenAPIHono } from "@hono/zod-openapi";
import { type Context, Hono, type MiddlewareHandler, type Next } from "hono";
import { type Logger, pino } from "pino";
import { ReviewQueue } from "../curation/review.ts";
import type { CurationStore } from "../curation/store.ts";
import type { Engine } from "../engine/engine.ts";
import { invalidRequest } from "./errors.ts";
import { addErrorHandlers, addGuards, type GuardOptions, limitBody, limitBodyMemory } from "./guards.ts";
import { ServerMetrics } from "./metrics.ts";
import { addChatCompletions } from "./openai/chat-completions.ts";
import { addEmbeddings } from "./openai/embeddings.ts";
import { addModels } from "./openai/models.ts";
import { addPage } from "./page.ts";
import { type QueueOptions, RequestQueue } from "./request-queue.ts";
import { reviewApi } from "./review/review.ts";
import { runsApi } from "./runs/runs.ts";
import { requestLog, type ServerContext, type ServerEnv } from "./server-context.ts";

export interface AppOptions extends Partial<QueueOptions>, GuardOptions {
  /** Time limit of a request in seconds, from its arrival to the end of the response. @default 300 */
  readonly timeoutSeconds?: number;
  /** How long a client may leave a stream unread before the connection is closed, in seconds. @default 30 */
  readonly writeTimeoutSeconds?: number;
  /** Maximum size of a request body, images included. @default 32_000_000 */
  readonly maxBodyBytes?: number;
  /** Maximum number of pixels of all images of a request. @default 50_000_000 */
  readonly maxPixels?: number;
  /** Maximum number of images of a request. @default 16 */
  readonly maxImages?: number;
  /** Fetch images from public http and https URLs. @default false */
  readonly allowRemoteImages?: boolean;
  /** Folder of training runs to plot on the page. */
  readonly runsFolder?: string;
  /** Curation project to review on the page. The caller closes it. */
  readonly review?: CurationStore;
  /** Folder of the built page. */
  readonly pageFolder?: string;
  /** @default no log */
  readonly log?: Logger;
  /** Aborts all running generations; its reason is sent to their clients. */
  readonly abortSignal?: AbortSignal;
}

/**
 * Creates an app with an OpenAI-compatible API on top of an engine. It must run on the Node.js server of `@hono/node-server`,
 * which tells it when a client disconnects. The app opens no files or processes: the caller closes the engine and the
 * curation project after the server.
 *
 * @example
 * ```ts
 * import { serve } from "@hono/node-server";
 * import { MiniGPT4 } from "minigpt4";
 * import { createApp } from "minigpt4/server";
 *
 * const model = await MiniGPT4.load("nano");
 * serve({ fetch: createApp(model.engine, { maxConcurrent: 4 }).fetch, port: 8000 });
 * ```
 */
export function createApp(engine: Engine, options: AppOptions = {}): Hono<ServerEnv> {
  const { apiKeys = [], maxBodyBytes = 32_000_000, drainSignal } = options;
  const context = createContext(engine, options);
  const app = new OpenAPIHono<ServerEnv>({
    defaultHook: (result) => {
      if (!result.success) throw invalidRequest(result.error);
    },
  });

  app.use(requestLog(context));
  addGuards(app, options);
  app.use("/v1/*", identifyClient, limitBodyMemory(maxBodyBytes), limitBody(maxBodyBytes));

  addModels(app, context, options.review !== undefined);
  addChatCompletions(app, context);
  addEmbeddings(app, context);
  app.get("/metrics", async (c) =>
    c.body(await context.metrics.render(), 200, { "content-type": context.metrics.contentType }),
  );
  if (apiKeys.length > 0) {
    app.openAPIRegistry.registerComponent("securitySchemes", "apiKey", { type: "http", scheme: "bearer" });
  }
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: { title: `minigpt4: ${engine.model.name}`, version: "1.0.0" },
    security: apiKeys.length > 0 ? [{ apiKey: [] }] : undefined,
  });
  if (options.runsFolder !== undefined) {
    if (drainSignal) app.use("/api/runs/*", closeConnectionOn(drainSignal));
    app.route("/api/runs", runsApi(options.runsFolder));
  }
  if (options.review) app.route("/api/review", reviewApi(new ReviewQueue(options.review)));
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);
  addErrorHandlers(app, context.log);
  return app;
}

function createContext(engine: Engine, options: AppOptions): ServerContext {
  const { maxConcurrent = 8, maxQueue = 64, maxBodyBytes = 32_000_000 } = options;
  const queue = new RequestQueue({ maxConcurrent, maxQueue });
  const { abortSignal = new AbortController().signal } = options;
  // Every running request adds a listener, which Node.js would report as a leak.
  setMaxListeners(0, abortSignal);
  return {
    engine,
    queue,
    metrics: new ServerMetrics(() => queue, engine),
    log: options.log ?? silentLog(),
    images: {
      allowRemote: options.allowRemoteImages ?? false,
      maxBytes: maxBodyBytes,
      maxPixels: options.maxPixels ?? 50_000_000,
      maxImages: options.maxImages ?? 16,
    },
    created: Math.floor(Date.now() / 1000),
    timeoutSeconds: options.timeoutSeconds ?? 300,
    writeTimeoutSeconds: options.writeTimeoutSeconds ?? 30,
    abortSignal,
  };
}

function silentLog(): Logger {
  return pino({ level: "silent" });
}

/** Middleware: stores who sends the request, and a signal of their disconnection. */
async function identifyClient(c: Context<ServerEnv>, next: Next): Promise<void> {
  c.set("client", c.get("key") ?? c.env.incoming.socket.remoteAddress ?? "unknown");
  // Stored before the body is read, which may replace the raw request by one with another signal.
  c.set("disconnected", c.req.raw.signal);
  await next();
}

/** Middleware: closes open streams when the server shuts down. Clients that follow a run reconnect by themselves. */
function closeConnectionOn(signal: AbortSignal): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const { outgoing } = c.env;
    const close = () => outgoing.destroy();
    signal.addEventListener("abort", close);
    outgoing.once("close", () => signal.removeEventListener("abort", close));
    await next();
  };
}

export interface ReviewAppOptions extends GuardOptions {
  /** Folder of the built page. */
  readonly pageFolder?: string;
  /** @default no log */
  readonly log?: Logger;
}

/** Creates an app that serves the review of a curation project, without a model. The caller closes the project. */
export function createReviewApp(store: CurationStore, options: ReviewAppOptions = {}): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  addGuards(app, options);
  // Without a model in the answer, the page hides its chat.
  app.get("/health", (c) => c.json({ status: "ok", review: true }));
  app.route("/api/review", reviewApi(new ReviewQueue(store)));
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);
  addErrorHandlers(app, options.log ?? silentLog());
  return app;
}
