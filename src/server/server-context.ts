/** What the routes share: the server's state, the abort signal of a request, running a generation, and the request log. */
import type { HttpBindings } from "@hono/node-server";
import type { MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { Logger } from "pino";
import type { Engine, GenerationEvent } from "../engine/engine.ts";
import { openAiError } from "./errors.ts";
import { fetchImages, type ImageLimits } from "./images/request-images.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { ParsedChatRequest } from "./openai/chat-request.ts";
import type { RequestQueue } from "./request-queue.ts";

export interface ServerContext {
  readonly engine: Engine;
  readonly queue: RequestQueue;
  readonly metrics: ServerMetrics;
  readonly log: Logger;
  readonly images: ImageLimits;
  /** Start of the server as a Unix timestamp in seconds: the date of the model in OpenAI's API. */
  readonly created: number;
  /** Time limit of a request, to the end of its response. */
  readonly timeoutSeconds: number;
  /** How long a client may leave a stream unread. */
  readonly writeTimeoutSeconds: number;
  /** Aborts all running generations; its reason is sent to their clients. */
  readonly abortSignal: AbortSignal;
}

/** Hono environment of a request. */
export interface ServerEnv {
  Bindings: HttpBindings;
  Variables: {
    /** Aborted when the client disconnects. */
    disconnected: AbortSignal;
    /** The API key of the request, if the server requires one. */
    key?: string;
    /** Identifies the client for fair queueing: the API key, or else the remote address. */
    client: string;
  };
}

/** Aborts the work for a request on a timeout, on a client's disconnection and when the server shuts down. */
export class RequestAbort {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly sources: readonly AbortSignal[];

  constructor(timeoutSeconds: number, sources: readonly AbortSignal[]) {
    this.sources = sources;
    this.timer = setTimeout(() => this.controller.abort(timeoutError(timeoutSeconds)), timeoutSeconds * 1000);
    for (const signal of sources) {
      if (signal.aborted) this.abort(signal.reason);
      signal.addEventListener("abort", this.onSourceAbort);
    }
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  abort(reason: unknown): void {
    // The reason is thrown later, so it has to be an error.
    this.controller.abort(reason instanceof Error ? reason : new Error(String(reason)));
  }

  /** The work is done: stops the timer and removes the listeners. */
  close(): void {
    clearTimeout(this.timer);
    for (const signal of this.sources) signal.removeEventListener("abort", this.onSourceAbort);
  }

  private readonly onSourceAbort = (event: Event): void => {
    if (event.target instanceof AbortSignal) this.abort(event.target.reason);
  };
}

/** OpenAI's clients retry server errors by default; a retry of this one would take as long and fail in the same way. */
function timeoutError(seconds: number) {
  const message = `The request took longer than ${seconds} seconds. Request fewer tokens.`;
  return openAiError(504, { message, type: "timeout", code: "timeout" }, { "x-should-retry": "false" });
}

export interface GenerateOptions {
  /** Identifies the client for fair queueing. */
  readonly client: string;
  /** Closed when the generation ends. */
  readonly abort: RequestAbort;
}

/**
 * Waits in the queue, fetches the images and streams the engine's events; records metrics. The slot in the queue is freed when the
 * events end, or the consumer stops reading them.
 *
 * @throws OpenAiError if the queue is full, on a timeout or when the server shuts down; errors of fetching images and of the engine
 */
export async function* generate(
  context: ServerContext,
  request: ParsedChatRequest,
  { client, abort }: GenerateOptions,
): AsyncGenerator<GenerationEvent, void> {
  const { queue, engine, metrics } = context;
  const { signal } = abort;
  const start = performance.now();
  let prompt: Extract<GenerationEvent, { kind: "begin" }> | undefined;
  let isFirstText = true;
  let unfinished = request.choices ?? 1;
  let reason: "cancelled" | "error" = "cancelled";
  try {
    const releaseSlot = await queue.acquire(client, signal);
    try {
      const images = await fetchImages(request.images, context.images, signal);
      for await (const event of engine.generate({ ...request, images }, signal)) {
        if (event.kind === "begin") prompt = event;
        if (event.kind === "text" && prompt && isFirstText) {
          isFirstText = false;
          metrics.recordFirstToken({ ...prompt, seconds: (performance.now() - start) / 1000 });
        }
        if (event.kind === "end") {
          unfinished--;
          metrics.recordCompletion(event);
        }
        yield event;
      }
      // An engine may end an aborted generation without an error.
      signal.throwIfAborted();
    } catch (error) {
      if (!signal.aborted) reason = "error";
      throw signal.aborted ? signal.reason : error;
    } finally {
      releaseSlot();
      if (prompt) for (; unfinished > 0; unfinished--) metrics.recordCompletion({ tokens: 0, reason });
    }
  } finally {
    abort.close();
  }
}

/** Status in the log if the client disconnected before the end of the response, as in nginx. */
const clientClosedRequest = 499;

/** Middleware: logs and measures each request when its response has ended. Logs neither texts nor keys. */
export function requestLog({ log, metrics }: ServerContext): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const start = performance.now();
    const { outgoing } = c.env;
    let route = "other";
    outgoing.once("close", () => {
      const status = outgoing.writableFinished ? outgoing.statusCode : clientClosedRequest;
      const seconds = (performance.now() - start) / 1000;
      metrics.recordRequest(route, status, seconds);
      log.info({ method: c.req.method, path: c.req.path.slice(0, 200), status, seconds: Number(seconds.toFixed(3)) });
    });
    await next();
    // Middleware paths contain a *.
    route = matchedRoutes(c).findLast(({ path }) => !path.includes("*"))?.path ?? route;
  };
}
