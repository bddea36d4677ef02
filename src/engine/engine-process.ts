/** What the engine's process runs: it loads the model, and then answers what it is sent, until nobody is there to send. */

import type { ModelInfo } from "./engine.ts";
import { type EngineOptions, loadEngine } from "./load-engine.ts";
import type { LocalEngine } from "./local-engine.ts";
import { type ErrorMessage, errorMessage, type FromEngine, servePort, type ToEngine } from "./port.ts";

export interface ProcessStart {
  readonly path: string;
  readonly name: string;
  readonly options: EngineOptions;
}

/** Beside the messages of `messages.ts`: the first one, and the last. */
export type ToProcess =
  | ToEngine
  | { readonly kind: "start"; readonly start: ProcessStart }
  | { readonly kind: "release" };
export type FromProcess =
  | FromEngine
  | { readonly kind: "ready"; readonly model: ModelInfo }
  | { readonly kind: "broken"; readonly error: ErrorMessage }
  | { readonly kind: "memory"; readonly bytes: number };

/** How often the process says what memory it has, in milliseconds. */
const memoryEvery = 5000;

function post(message: FromProcess, onSent: () => void = () => {}): void {
  // Where the channel is closed, nobody is there to be told.
  process.send?.(message, undefined, undefined, onSent);
}

let loading: Promise<LocalEngine> | undefined;

async function start({ path, name, options }: ProcessStart): Promise<void> {
  loading = loadEngine(path, name, options);
  const engine = await loading;
  servePort(engine, {
    post,
    listen: (onMessage) =>
      process.on("message", (message: ToProcess) => {
        if (message.kind !== "release" && message.kind !== "start") onMessage(message);
      }),
  });
  post({ kind: "ready", model: engine.model });
  const tellMemory = () => post({ kind: "memory", bytes: process.memoryUsage.rss() });
  tellMemory();
  setInterval(tellMemory, memoryEvery).unref();
}

/** Leaves nothing behind: what is being loaded has files until it is loaded. */
async function end(): Promise<void> {
  await loading?.then((engine) => engine.close()).catch(() => {});
  process.exit();
}

// It ends with whoever started it, however that ends. A terminal, or what ends a service, sends its signals to both: what they
// mean is for the other side to say, which may have an answer to finish.
process.on("disconnect", end);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});
process.on("message", (message: ToProcess) => {
  if (message.kind === "release") void end();
  if (message.kind !== "start") return;
  start(message.start).catch((error) => post({ kind: "broken", error: errorMessage(error) }, () => process.exit(1)));
});
