/** The app on a port, until it is asked to stop. */
import { setMaxListeners } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import type { CurationStore } from "../curation/store.ts";
import type { Engine } from "../engine/engine.ts";
import { type AppOptions, createApp, createReviewApp, type ReviewAppOptions } from "./app.ts";
import { openAiError } from "./errors.ts";
import type { ServerEnv } from "./server-context.ts";

/** Where a server listens. */
interface Place {
  /** Default 127.0.0.1: programs of this machine only. */
  readonly host?: string;
  /** Default 8000; 0 takes a free one. */
  readonly port?: number;
}

export interface ServerOptions extends Omit<AppOptions, "stopping" | "ended">, Place {
  readonly engine: Engine;
}

export interface ReviewServerOptions extends Omit<ReviewAppOptions, "stopping">, Place {
  readonly store: CurationStore;
}

export interface RunningServer {
  /** Where it answers, for example `http://127.0.0.1:8000`. */
  readonly url: string;
  /**
   * Stops: no new requests are taken, and running answers have `graceMs` to end by themselves. Those that do not are
   * ended with an error, not as answers that are complete or have reached their length: nobody should take a torn text
   * for what the model had to say. The engine stays as it is.
   */
  close(graceMs: number): Promise<void>;
}

/** How often connections that have become idle are looked for while the server stops. */
const idleCheckMs = 50;
/** How long ended answers may take to tell their clients. */
const farewellMs = 2000;

/** @throws Error if the port is taken or the host unknown */
export function startServer({ engine, ...options }: ServerOptions): Promise<RunningServer> {
  return startApp(options, (more) => createApp(engine, { ...options, ...more }));
}

/** Starts a server that has no model. @throws Error if the port is taken or the host unknown */
export function startReviewServer({ store, ...options }: ReviewServerOptions): Promise<RunningServer> {
  return startApp(options, (more) => createReviewApp(store, { ...options, ...more }));
}

type Given = Required<Pick<AppOptions, "hosts" | "stopping" | "ended">>;

async function startApp(
  options: Place & Pick<AppOptions, "hosts">,
  create: (given: Given) => Hono<ServerEnv>,
): Promise<RunningServer> {
  const { host = "127.0.0.1", port = 8000, hosts = namesOf(host) } = options;
  const stopping = new AbortController();
  const ended = new AbortController();
  // Each request listens, which is no leak.
  setMaxListeners(0, stopping.signal, ended.signal);
  const app = create({ hosts, stopping: stopping.signal, ended: ended.signal });
  const listener = getRequestListener(app.fetch, {
    // What no app sees: a request whose address or Host header makes no URL.
    errorHandler: () =>
      openAiError(400, { message: "The request's address or Host header is not valid" }).getResponse(),
  });
  const server = createServer(listener);
  await listen(server, host, port);
  let closed: Promise<void> | undefined;
  return {
    url: urlOf(server),
    close: (graceMs) => {
      closed ??= stop(server, stopping, ended, graceMs);
      return closed;
    },
  };
}

async function stop(server: Server, stopping: AbortController, ended: AbortController, graceMs: number): Promise<void> {
  stopping.abort();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const idle = setInterval(() => server.closeIdleConnections(), idleCheckMs);
  try {
    await atMost(graceMs, closed);
    ended.abort(openAiError(503, { message: "The server stops; the answer is not complete", code: "server_stopping" }));
    await atMost(farewellMs, closed);
    server.closeAllConnections();
    await closed;
  } finally {
    clearInterval(idle);
  }
}

/** Waits for `done`, but no longer. */
async function atMost(milliseconds: number, done: Promise<void>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([done, sleep(milliseconds, undefined, { signal: timer.signal }).catch(() => {})]);
  timer.abort();
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const place = `port ${port} of ${host}`;
      const problem = listenErrors[cause.code ?? ""]?.(place) ?? `${place} cannot be used: ${cause.message}`;
      reject(new Error(problem, { cause }));
    });
    server.listen(port, host, resolve);
  });
}

const listenErrors: Readonly<Record<string, (place: string) => string>> = {
  EADDRINUSE: (place) => `${place} is in use by another program; choose another with --port`,
  EACCES: (place) => `${place} may not be used by this user; choose one above 1023 with --port`,
  EADDRNOTAVAIL: (place) => `${place}: this machine has no such address; --host 127.0.0.1 is always there`,
  ENOTFOUND: (place) => `${place}: the host is unknown; --host takes an address of this machine`,
  EAI_AGAIN: (place) => `${place}: the host is unknown; --host takes an address of this machine`,
};

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  if (address === "0.0.0.0" || address === "::") return `http://localhost:${port}`;
  return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}

/** The names that a server on `host` goes by, besides its addresses. */
function namesOf(host: string): string[] {
  return ["localhost", host, hostname()].filter((name) => name !== "");
}
