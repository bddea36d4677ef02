/** How many bytes of requests lie in memory at once: a body is read before its question has a place, and stays until the answer ends. */
import type { Context, MiddlewareHandler } from "hono";
import { openAiError } from "./openai-error.ts";
import type { ServerEnv } from "./service.ts";

/** So many of the largest bodies are held together; of one client half of them, so that nobody keeps all others out. */
const largestBodies = 8;

/**
 * Refuses, with status 429, bodies for which there is no room beside those of requests that are not answered yet. What counts
 * is the length that a request declares, before any of it is read; without one it may become the largest.
 */
export function holdBodies(maxBodyBytes: number): MiddlewareHandler<ServerEnv> {
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
function untilEnd({ env: { incoming, outgoing } }: Context<ServerEnv>, release: () => void): void {
  const { socket } = incoming;
  const end = () => {
    socket.off("close", end);
    outgoing.off("close", end);
    release();
  };
  outgoing.once("close", end);
  // An answer that waits behind another one of its connection is not told when that breaks.
  socket.setMaxListeners(0).once("close", end);
}
