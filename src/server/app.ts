/** The HTTP server's routes and what stands before them, as one Hono app. */
import { setMaxListeners } from "node:events";
import { OpenAPIHono } from "@hono/zod-openapi";
import { type Context, Hono, type MiddlewareHandler, type Next } from "hono";
import { type Logger, pino } from "pino";
import { ReviewDesk } from "../curation/review.ts";
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
  /** Longest time for an answer (default 300). */
  readonly timeoutSeconds?: number;
  /** How long a client may leave a stream unread (default 30). */
  readonly writeTimeoutSeconds?: number;
  /** Largest body of a request, images included (default 32 MB). */
  readonly maxBodyBytes?: number;
  /** Most pixels of all images of a request together (default 50 million). */
  readonly maxPixels?: number;
  /** Most images of a request (default 16). */
  readonly maxImages?: number;
  /** Whether images are fetched from http and https addresses (default false). */
  readonly allowRemoteImages?: boolean;
  /** Folder of training runs, whose curves the page shows. */
  readonly runsFolder?: string;
  /** A curation project that the page reviews. */
  readonly review?: CurationStore;
  /** Folder of the built page. */
  readonly pageFolder?: string;
  readonly log?: Logger;
  /** Aborted when running answers must end; the reason is what their clients are told. */
  readonly ended?: AbortSignal;
}

/** An app that answers with `engine`. It needs the Node.js server of `@hono/node-server`. */
export function createApp(engine: Engine, options: AppOptions = {}): Hono<ServerEnv> {
  const { apiKeys = [], maxBodyBytes = 32_000_000, stopping } = options;
  const service = createService(engine, options);
  const app = new OpenAPIHono<ServerEnv>({
    defaultHook: (result) => {
      if (!result.success) throw invalidRequest(result.error);
    },
  });

  app.use(requestLog(service));
  addGuards(app, options);
  app.use("/v1/*", identify, limitBodyMemory(maxBodyBytes), limitBody(maxBodyBytes));

  addModels(app, service, options.review !== undefined);
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
  if (options.review) app.route("/api/review", reviewApi(new ReviewDesk(options.review)));
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);
  addErrorHandlers(app, service.log);
  return app;
}

function createService(engine: Engine, options: AppOptions): ServerContext {
  const { maxConcurrent = 8, maxQueue = 64, maxBodyBytes = 32_000_000 } = options;
  const admission = new RequestQueue({ maxConcurrent, maxQueue });
  const { ended = new AbortController().signal } = options;
  // Every request that is answered listens; to Node.js more than ten look like a leak.
  setMaxListeners(0, ended);
  return {
    engine,
    admission,
    metrics: new ServerMetrics(() => admission, engine),
    log: options.log ?? pino({ level: "silent" }),
    images: {
      allowRemote: options.allowRemoteImages ?? false,
      maxBytes: maxBodyBytes,
      maxPixels: options.maxPixels ?? 50_000_000,
      maxImages: options.maxImages ?? 16,
    },
    created: Math.floor(Date.now() / 1000),
    timeoutSeconds: options.timeoutSeconds ?? 300,
    writeTimeoutSeconds: options.writeTimeoutSeconds ?? 30,
    ended,
  };
}

/** Notes who asks, and how to learn that they went away. */
async function identify(c: Context<ServerEnv>, next: Next): Promise<void> {
  c.set("client", c.get("key") ?? c.env.incoming.socket.remoteAddress ?? "unknown");
  // Before the body is read: what takes its place afterwards may have a signal of its own.
  c.set("gone", c.req.raw.signal);
  await next();
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

// The review of a curation project alone, without a model.

export interface ReviewAppOptions extends GuardOptions {
  /** Folder of the built page. */
  readonly pageFolder?: string;
  readonly log?: Logger;
}

export function createReviewApp(store: CurationStore, options: ReviewAppOptions = {}): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  addGuards(app, options);
  // The page shows no chat where there is no model.
  app.get("/health", (c) => c.json({ status: "ok", review: true }));
  app.route("/api/review", reviewApi(new ReviewDesk(store)));
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);
  addErrorHandlers(app, options.log ?? pino({ level: "silent" }));
  return app;
}
