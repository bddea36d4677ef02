/** The engine's side of a port: answers what is asked over it. */
import type { Engine } from "./engine.ts";
import { errorMessage, type FromEngine, type Port, type ToEngine } from "./messages.ts";

export function answerPort(engine: Engine, port: Port<FromEngine, ToEngine>): void {
  const running = new Map<number, AbortController>();

  async function take(message: Exclude<ToEngine, { kind: "cancel" }>): Promise<void> {
    const { id } = message;
    const controller = new AbortController();
    running.set(id, controller);
    try {
      if (message.kind === "embed") {
        port.post({ kind: "embeddings", id, embeddings: await engine.embed(message.inputs, controller.signal) });
      } else {
        for await (const event of engine.answer(message.question, controller.signal)) {
          port.post({ kind: "event", id, event });
        }
      }
      port.post({ kind: "done", id });
    } catch (error) {
      port.post({ kind: "failed", id, error: errorMessage(error) });
    } finally {
      running.delete(id);
    }
  }

  port.listen((message) => {
    if (message.kind === "cancel") running.get(message.id)?.abort();
    else void take(message);
  });
}
