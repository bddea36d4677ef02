/** What commands that serve something over HTTP have in common. */
import { isIP } from "node:net";
import { join } from "node:path";
import { Interrupted, interruptedExitCode } from "./options.ts";

/** Where the built page lies, beside the built program. */
export const pageFolder = join(import.meta.dirname, "..", "..", "dist", "web");

/** Time for running answers when the server is asked to stop; Docker, for one, waits for 10 seconds. */
export const graceMs = 7_000;

/** A signal that the first Ctrl-C, or a request to end, aborts; the second ends the process at once. */
export function untilStopped(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(interruptedExitCode);
      controller.abort(new Interrupted("Interrupted"));
    });
  }
  return controller.signal;
}

export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export function warnIfOpen(host: string, apiKeys: readonly string[]): void {
  if (apiKeys.length > 0 || isLoopback(host)) return;
  console.error(
    `warning: whoever reaches ${host} can use this server; set MINIGPT4_API_KEYS to ask for keys (see docs/server.md)`,
  );
}

/** Whoever must send a key cannot be a strange page in somebody's browser, so that any name will do then. */
export function hostsOf(
  { host, allowHost }: { readonly host: string; readonly allowHost?: readonly string[] },
  apiKeys: readonly string[],
): { readonly hosts?: readonly string[] } {
  if (apiKeys.length > 0) return { hosts: ["*"] };
  return allowHost ? { hosts: ["localhost", host, ...allowHost] } : {};
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}
