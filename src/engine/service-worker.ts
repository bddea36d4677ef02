/**
 * What a service's own process runs (see `service-process.ts`): it imports the module of the service, starts it, and serves
 * calls until the process that started it is gone.
 */

import { type FromService, servePort, type ToService, toErrorMessage } from "./port.ts";
import type { FromProcess, HostedService, ServiceModule, ServiceStart, ToProcess } from "./service-process.ts";

/** How often the process reports its memory, in milliseconds. */
const memoryInterval = 5000;

function post(message: FromProcess | FromService, onSent: () => void = () => {}): void {
  // Nobody receives it once the channel is closed.
  process.send?.(message, undefined, undefined, onSent);
}

let starting: Promise<HostedService> | undefined;

async function start({ module, options }: ServiceStart): Promise<void> {
  const { startService }: ServiceModule = await import(module);
  starting = startService(options, (value) => post({ kind: "notice", value }));
  const { info, service } = await starting;
  servePort(service, {
    post,
    listen: (onMessage) =>
      process.on("message", (message: ToProcess | ToService) => {
        if (message.kind === "call" || message.kind === "cancel") onMessage(message);
      }),
  });
  post({ kind: "ready", info });
  const reportMemory = () => post({ kind: "memory", bytes: process.memoryUsage.rss() });
  reportMemory();
  setInterval(reportMemory, memoryInterval).unref();
}

/** Closes the service first: one that is still loading has temporary files. */
async function exit(): Promise<void> {
  await starting?.then((service) => service.close()).catch(() => {});
  process.exit();
}

// The process exits with its parent, however that exits. Terminals and service managers send their signals to both; the parent
// decides what they mean, as it may have a request to finish.
process.on("disconnect", exit);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});
process.on("message", (message: ToProcess) => {
  if (message.kind === "close") void exit();
  if (message.kind !== "start") return;
  start(message.start).catch((error) => post({ kind: "broken", error: toErrorMessage(error) }, () => process.exit(1)));
});
