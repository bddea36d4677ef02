/** Serves an app on a port, with a graceful shutdown. */
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

interface ListenOptions {
  /** Address to listen on. @default "127.0.0.1", reachable from this machine only */
  readonly host?: string;
  /** 0 selects a free port. @default 8000 */
  readonly port?: number;
}

export interface ServerOptions extends Omit<AppOptions, "drainSignal" | "abortSignal">, ListenOptions {
  /** Generates the responses. The caller closes it after the server. */
  readonly engine: Engine;
}

export interface ReviewServerOptions extends Omit<ReviewAppOptions, "drainSignal">, ListenOptions {
  readonly store: CurationStore;
}

export interface RunningServer {
  /** Base URL, for example `http://127.0.0.1:8000`. */
  readonly url: string;
  /**
   * Shuts down: rejects new requests and gives running ones `graceMs` milliseconds to finish. The rest end with an error
   * (`server_stopping`) instead of a finish reason, so that no client takes an incomplete text for a complete one.
   * Does not close the engine.
   */
  close(graceMs: number): Promise<void>;
  /** Shuts down without waiting for running requests. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** How often idle connections are closed during the shutdown. */
const idleCheckMs = 50;
/** How long aborted requests may take to send their error. */
const abortGraceMs = 2000;

/**
 * Starts the HTTP server.
 * @throws Error if the port is in use or the host unknown
 *
 * @example
 * ```ts
 * import { MiniGPT4 } from "minigpt4";
 * import { startServer } from "minigpt4/server";
 *
 * await using model = await MiniGPT4.load("nano");
 * const server = await startServer({ engine: model.engine, port: 0 });
 * console.log(`Listening on ${server.url}`);
 * await server.close(5000);
 * ```
 */
export function startServer({ engine, ...options }: ServerOptions): Promise<RunningServer> {
  return startApp(options, (more) => createApp(engine, { ...options, ...more }));
}

/** Starts a server for the review of a curation project, without a model. @throws Error if the port is in use or the host unknown */
export function startReviewServer({ store, ...options }: ReviewServerOptions): Promise<RunningServer> {
  return startApp(options, (more) => createReviewApp(store, { ...options, ...more }));
}

type ShutdownOptions = Required<Pick<AppOptions, "hosts" | "drainSignal" | "abortSignal">>;

async function startApp(
  options: ListenOptions & Pick<AppOptions, "hosts">,
  create: (shutdown: ShutdownOptions) => Hono<ServerEnv>,
): Promise<RunningServer> {
  const { host = "127.0.0.1", port = 8000, hosts = serverNames(host) } = options;
  const drain = new AbortController();
  const abort = new AbortController();
  // Every request adds a listener, which is not a leak.
  setMaxListeners(0, drain.signal, abort.signal);
  const app = create({ hosts, drainSignal: drain.signal, abortSignal: abort.signal });
  const listener = getRequestListener(app.fetch, {
    // Called for requests that never reach the app: their target and Host header do not form a URL.
    errorHandler: () =>
      openAiError(400, { message: "The request target or the Host header is invalid." }).getResponse(),
  });
  const server = createServer(listener);
  await listen(server, host, port);
  let closed: Promise<void> | undefined;
  const close = (graceMs: number) => {
    closed ??= shutDown(server, { drain, abort, graceMs });
    return closed;
  };
  return { url: serverUrl(server), close, [Symbol.asyncDispose]: () => close(0) };
}

interface Shutdown {
  readonly drain: AbortController;
  readonly abort: AbortController;
  readonly graceMs: number;
}

async function shutDown(server: Server, { drain, abort, graceMs }: Shutdown): Promise<void> {
  drain.abort();
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const idle = setInterval(() => server.closeIdleConnections(), idleCheckMs);
  try {
    await waitAtMost(graceMs, closed);
    const message = "The server is shutting down. The response is incomplete.";
    abort.abort(openAiError(503, { message, code: "server_stopping" }));
    await waitAtMost(abortGraceMs, closed);
    server.closeAllConnections();
    await closed;
  } finally {
    clearInterval(idle);
  }
}

/** Waits until `done` settles, or the time is over. */
async function waitAtMost(milliseconds: number, done: Promise<void>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([done, sleep(milliseconds, undefined, { signal: timer.signal }).catch(() => {})]);
  timer.abort();
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const problem =
        listenErrors[cause.code ?? ""]?.(host, port) ?? `Cannot listen on ${host}:${port}: ${cause.message}`;
      reject(new Error(problem, { cause }));
    });
    server.listen(port, host, resolve);
  });
}

const unknownHost = (host: string) => `Unknown host ${host}. Choose an address of this machine with --host.`;

const listenErrors: Readonly<Record<string, (host: string, port: number) => string>> = {
  EADDRINUSE: (host, port) => `Port ${port} of ${host} is in use by another program. Choose another with --port.`,
  EACCES: (host, port) => `No permission to listen on port ${port} of ${host}. Choose a port above 1023 with --port.`,
  EADDRNOTAVAIL: (host) => `This machine has no address ${host}. Choose another with --host; 127.0.0.1 always works.`,
  ENOTFOUND: unknownHost,
  EAI_AGAIN: unknownHost,
};

function serverUrl(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  if (address === "0.0.0.0" || address === "::") return `http://localhost:${port}`;
  return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}

/** Host names under which a server on `host` is reached, besides IP addresses. */
function serverNames(host: string): string[] {
  return ["localhost", host, hostname()].filter((name) => name !== "");
}
