/** What the routes of the server share. */
import type { HttpBindings } from "@hono/node-server";
import type { MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { Logger } from "pino";
import type { Engine, GenerationEvent } from "../engine/engine.ts";
import { openAiError } from "./errors.ts";
import { fetchImages, type ImageLimits } from "./images/request-images.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { UnresolvedRequest } from "./openai/chat-request.ts";
import type { RequestQueue } from "./request-queue.ts";

export interface ServerContext {
  readonly engine: Engine;
  readonly admission: RequestQueue;
  readonly metrics: ServerMetrics;
  readonly log: Logger;
  readonly images: ImageLimits;
  /** When the server began, in seconds since 1970: models have a date in OpenAI's API. */
  readonly created: number;
  /** Longest time from a request to the end of its answer. */
  readonly timeoutSeconds: number;
  /** How long a client may leave a stream unread. */
  readonly writeTimeoutSeconds: number;
  /** Aborted when running answers must end; its reason is what their clients are told. */
  readonly ended: AbortSignal;
}

/** What the server knows of a request. */
export interface ServerEnv {
  Bindings: HttpBindings;
  Variables: {
    /** Aborted when the client goes away. */
    gone: AbortSignal;
    /** The API key that was sent, where the server wants one. */
    key?: string;
    /** Among whom places are shared out: the API key, or the address that the request comes from. */
    client: string;
  };
}

// What ends the work for a request before it is done: the client goes away, its time is over, or the server stops.

export class RequestAbort {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly others: readonly AbortSignal[];

  constructor(timeoutSeconds: number, others: readonly AbortSignal[]) {
    this.others = others;
    this.timer = setTimeout(() => this.controller.abort(timeOver(timeoutSeconds)), timeoutSeconds * 1000);
    for (const signal of others) {
      if (signal.aborted) this.end(signal.reason);
      signal.addEventListener("abort", this.passOn);
    }
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Ends the work for a reason of the caller's. */
  abort(reason: Error): void {
    this.controller.abort(reason);
  }

  /** The work is done: nothing is waited for any more. */
  close(): void {
    clearTimeout(this.timer);
    for (const signal of this.others) signal.removeEventListener("abort", this.passOn);
  }

  private readonly passOn = (event: Event): void => {
    if (event.target instanceof AbortSignal) this.end(event.target.reason);
  };

  /** A reason is thrown later, and what is thrown should be an error. */
  private end(reason: unknown): void {
    this.controller.abort(reason instanceof Error ? reason : new Error(String(reason)));
  }
}

/** Clients of OpenAI ask again by themselves after an error of the server, which would take as long and end the same way. */
function timeOver(seconds: number) {
  const message = `The answer took longer than ${seconds} seconds; ask for fewer tokens`;
  return openAiError(504, { message, type: "timeout", code: "timeout" }, { "x-should-retry": "false" });
}

// A question's way to the engine and back: waiting for a place, its images, the answer, and what is counted of it.

/**
 * The answer's events. The place is given back when they end, or nobody takes them any more.
 *
 * @throws OpenAiError if there is no place, the time is over or the server stops; whatever fetching images and the engine throw
 */
export async function* ask(
  service: ServerContext,
  client: string,
  question: UnresolvedRequest,
  end: RequestAbort,
): AsyncGenerator<GenerationEvent, void> {
  const { signal } = end;
  const asked = performance.now();
  let begun: Extract<GenerationEvent, { kind: "begin" }> | undefined;
  let firstText = true;
  let open = question.choices ?? 1;
  let reason: "cancelled" | "error" = "cancelled";
  try {
    const leave = await service.admission.enter(client, signal);
    try {
      const images = await fetchImages(question.images, service.images, signal);
      for await (const event of service.engine.generate({ ...question, images }, signal)) {
        if (event.kind === "begin") begun = event;
        if (event.kind === "text" && begun && firstText) {
          firstText = false;
          service.metrics.answerBegun({ ...begun, secondsToFirstToken: (performance.now() - asked) / 1000 });
        }
        if (event.kind === "end") {
          open--;
          service.metrics.answerEnded(event);
        }
        yield event;
      }
      // An engine may end an aborted answer without a word.
      signal.throwIfAborted();
    } catch (error) {
      if (!signal.aborted) reason = "error";
      throw signal.aborted ? signal.reason : error;
    } finally {
      leave();
      if (begun) for (; open > 0; open--) service.metrics.answerEnded({ tokens: 0, reason });
    }
  } finally {
    end.close();
  }
}

// A line in the log and a number in the metrics for each request, when its answer has ended.

/** What the log says of a request whose client did not wait for the end of the answer, as nginx does. */
const clientGone = 499;

/** Neither texts nor keys are noted. */
export function requestLog({ log, metrics }: ServerContext): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const began = performance.now();
    const { outgoing } = c.env;
    let route = "other";
    outgoing.once("close", () => {
      const status = outgoing.writableFinished ? outgoing.statusCode : clientGone;
      const seconds = (performance.now() - began) / 1000;
      metrics.request(route, status, seconds);
      log.info({ method: c.req.method, path: c.req.path.slice(0, 200), status, seconds: Number(seconds.toFixed(3)) });
    });
    await next();
    // What stands before all routes has a * in its path.
    route = matchedRoutes(c).findLast(({ path }) => !path.includes("*"))?.path ?? route;
  };
}
