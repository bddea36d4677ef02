/** What the engine's worker thread runs: it loads the model, and then answers what comes over its port. */
import { parentPort, workerData } from "node:worker_threads";
import type { ExitGuard } from "../../tensor/exit-guard.ts";
import { answerPort } from "./answer-port.ts";
import type { ModelCard } from "./engine.ts";
import { type EngineOptions, loadEngine } from "./load-engine.ts";
import { errorMessage, type FromEngine, type ToEngine } from "./messages.ts";

export interface ThreadStart extends ExitGuard {
  readonly path: string;
  readonly name: string;
  readonly options: EngineOptions;
}

/** Beside the messages of `messages.ts`: the first one, and the last. */
export type FromThread =
  | FromEngine
  | { readonly kind: "ready"; readonly model: ModelCard }
  | { readonly kind: "broken"; readonly error: { readonly message: string } };
export type ToThread = ToEngine | { readonly kind: "release" };

const { path, name, options } = workerData as ThreadStart;
const port = parentPort;
if (!port) throw new Error("This file is run as a worker thread by thread-engine.ts");
const post = (message: FromThread) => port.postMessage(message);

try {
  const engine = await loadEngine(path, name, options);
  port.on("message", (message: ToThread) => {
    if (message.kind === "release") void engine.release().then(() => process.exit());
  });
  answerPort(engine, {
    post,
    listen: (onMessage) =>
      port.on("message", (message: ToThread) => {
        if (message.kind !== "release") onMessage(message);
      }),
  });
  post({ kind: "ready", model: engine.model });
} catch (error) {
  post({ kind: "broken", error: errorMessage(error) });
  port.close();
}
