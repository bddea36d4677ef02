/**
 * An engine on a thread of its own, so that the calling thread stays free while a token is computed. If the thread
 * breaks down, what it was answering fails with an `EngineLostError`, and a new one is started.
 */
import "../../tensor/no-telemetry.ts";
import { setMaxListeners } from "node:events";
import { Worker } from "node:worker_threads";
import type { PullOptions } from "../../checkpoints/pull.ts";
import { fetchLanguageModel } from "../../models/model-folder.ts";
import { guardExit } from "../../tensor/exit-guard.ts";
import {
  type AnswerEvent,
  type EmbeddingInput,
  type Engine,
  EngineLostError,
  type ModelCard,
  type Question,
} from "./engine.ts";
import type { FromThread, ThreadStart, ToThread } from "./engine-thread.ts";
import type { EngineOptions } from "./load-engine.ts";
import { errorFrom } from "./messages.ts";
import { PortEngine } from "./port-engine.ts";

type Start = Omit<ThreadStart, "exitGuard">;

/** A thread whose model is loaded. */
interface Started {
  readonly worker: Worker;
  readonly engine: PortEngine;
}

export class ThreadEngine implements Engine {
  readonly model: ModelCard;
  private readonly start: Start;
  /** The thread, or the one that is being started in place of a broken one. */
  private thread: Promise<Started>;
  private released = false;

  private constructor(start: Start, first: Started) {
    this.start = start;
    this.model = first.engine.model;
    this.thread = Promise.resolve(first);
    this.watch(first);
  }

  /**
   * Loads a model folder; what has to be fetched for it is fetched first, on the calling thread.
   * @param name what the model is called
   * @throws Error naming what is missing or does not fit
   */
  static async load(
    path: string,
    name: string,
    { pull, ...options }: EngineOptions & { readonly pull?: PullOptions } = {},
  ): Promise<ThreadEngine> {
    await fetchLanguageModel(path, pull);
    const start = { path, name, options };
    return new ThreadEngine(start, await startThread(start));
  }

  async *answer(question: Question, signal?: AbortSignal): AsyncGenerator<AnswerEvent, void> {
    // One signal may end many questions; Node takes that for a leak.
    if (signal) setMaxListeners(0, signal);
    yield* (await this.started()).engine.answer(question, signal);
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    return (await this.started()).engine.embed(inputs, signal);
  }

  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    const thread = await this.thread.catch(() => undefined);
    if (!thread) return;
    const gone = new Promise((resolve) => thread.worker.once("exit", resolve));
    thread.engine.fail(released());
    // Nothing is asked any more, but its end is waited for.
    thread.worker.ref();
    thread.worker.postMessage({ kind: "release" } satisfies ToThread);
    await gone;
  }

  private async started(): Promise<Started> {
    if (this.released) throw released();
    const { thread } = this;
    try {
      return await thread;
    } catch (cause) {
      // The next question tries once more; of several that waited for this thread, one begins that.
      if (this.thread === thread && !this.released) this.restart();
      throw new EngineLostError(`The engine cannot be started again: ${(cause as Error).message}`, { cause });
    }
  }

  /** Starts another thread when this one is gone. */
  private watch({ worker, engine }: Started): void {
    let cause: Error | undefined;
    worker.on("error", (error: Error) => {
      cause = error;
    });
    worker.once("exit", (code) => {
      const why = cause?.message ?? `its thread ended with code ${code}`;
      engine.fail(new EngineLostError(`The engine broke down: ${why}`, { cause }));
      if (!this.released) this.restart();
    });
  }

  private restart(): void {
    this.thread = startThread(this.start).then((started) => {
      this.watch(started);
      return started;
    });
    // Whoever asks next is told.
    this.thread.catch(() => {});
  }
}

function released(): Error {
  return new Error("The model was released; load it again");
}

/** @throws Error if the model cannot be loaded */
async function startThread(start: Start): Promise<Started> {
  const { exitGuard, release } = guardExit();
  const worker = newWorker({ ...start, exitGuard });
  worker.once("exit", release);
  const model = await new Promise<ModelCard>((resolve, reject) => {
    worker.once("error", reject);
    worker.once("exit", (code) =>
      reject(new Error(`The engine's thread ended with code ${code} while it was starting`)),
    );
    worker.once("message", (message: FromThread) => {
      if (message.kind === "ready") resolve(message.model);
      else if (message.kind === "broken") reject(errorFrom(message.error));
    });
  });
  const engine = new PortEngine(
    model,
    {
      post: (message) => worker.postMessage(message),
      listen: (onMessage) => worker.on("message", onMessage),
    },
    (busy) => (busy ? worker.ref() : worker.unref()),
  );
  // A thread that has nothing to do keeps no process alive; whoever begins to listen to it does, so that this comes last.
  worker.unref();
  return { worker, engine };
}

function newWorker(workerData: ThreadStart): Worker {
  if (import.meta.url.endsWith(".js"))
    return new Worker(new URL("./engine-thread.js", import.meta.url), { workerData });
  // From its sources the project runs through a loader, which a thread has to register for itself.
  const file = JSON.stringify(new URL("./engine-thread.ts", import.meta.url).href);
  const code = `import("tsx/esm/api").then(({ register }) => { register(); return import(${file}); })`;
  return new Worker(code, { eval: true, workerData });
}
