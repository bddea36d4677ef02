/** What `serve` and `curate review` have in common: both listen for HTTP requests until they are stopped. */
import { isIP } from "node:net";
import { join } from "node:path";
import type { CommandContext } from "./context.ts";

/** The built web page, next to the built program. */
export const pageFolder = join(import.meta.dirname, "..", "..", "dist", "web");

/** Milliseconds for running requests to finish when the server is stopped; Docker, for one, waits for 10 seconds. */
export const graceMs = 7_000;

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Warns about a server that others can reach without a key. */
export function warnIfOpen(context: CommandContext, host: string, apiKeys: readonly string[]): void {
  if (apiKeys.length > 0 || isLoopback(host)) return;
  context.printError(
    `warning: anyone who can reach ${host} can use this server; set MINIGPT4_API_KEYS to require a key (see docs/server.md)`,
  );
}

/** The host names that the server answers to. With keys any will do: a malicious page in a browser has none. */
export function allowedHosts(
  { host, allowHost }: { readonly host: string; readonly allowHost?: readonly string[] },
  apiKeys: readonly string[],
): readonly string[] | undefined {
  if (apiKeys.length > 0) return ["*"];
  return allowHost && ["localhost", host, ...allowHost];
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}
