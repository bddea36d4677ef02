/**
 * An engine in a process of its own. The calling process stays free while a token is computed; the engine's memory is in large pages;
 * and if the engine breaks down, be it in native code or because memory ran out, then what it was answering fails with an
 * `EngineLostError`, and a new one is started.
 */
import { type ChildProcess, fork } from "node:child_process";
import { setMaxListeners } from "node:events";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { PullOptions } from "../hub/pull.ts";
import { fetchLanguageModel } from "../models/model-folder.ts";
import { withLargePages } from "../runtime/environment.ts";
import {
  type EmbeddingInput,
  type Engine,
  EngineLostError,
  type GenerationEvent,
  type GenerationRequest,
  type ImageInput,
  type ModelInfo,
} from "./engine.ts";
import type { FromProcess, ProcessStart, ToProcess } from "./engine-process.ts";
import type { EngineOptions } from "./load-engine.ts";
import { errorFrom, type FromEngine, PortEngine } from "./port.ts";

/** A process whose model is being loaded, or is. */
interface EngineProcess {
  readonly child: ChildProcess;
  readonly engine: Promise<PortEngine>;
  /** What it last said. */
  readonly memory: { bytes: number };
}

export class ProcessEngine implements Engine {
  readonly model: ModelInfo;
  private readonly start: ProcessStart;
  /** The process, or the one that is being started in place of a broken one. */
  private current: EngineProcess;
  /** Whether its model is loaded. */
  private isReady = true;
  private released = false;

  private constructor(start: ProcessStart, first: EngineProcess, engine: PortEngine) {
    this.start = start;
    this.model = engine.model;
    this.current = first;
    this.watch(first.child, engine);
  }

  /**
   * Loads a model folder; what has to be fetched for it is fetched first, by the calling process.
   * @param name what the model is called
   * @throws Error naming what is missing or does not fit
   */
  static async load(
    path: string,
    name: string,
    { pull, ...options }: EngineOptions & { readonly pull?: PullOptions } = {},
  ): Promise<ProcessEngine> {
    await fetchLanguageModel(path, pull);
    const start = { path: resolve(path), name, options };
    const first = startProcess(start);
    return new ProcessEngine(start, first, await first.engine);
  }

  /** Memory of the engine's process in bytes, as it last said, which it does every few seconds. */
  get residentBytes(): number {
    return this.current.memory.bytes;
  }

  async *generate(question: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    // One signal may end many questions; Node takes that for a leak.
    if (signal) setMaxListeners(0, signal);
    const engine = await this.started();
    yield* engine.generate({ ...question, images: question.images.map(placed) }, signal);
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    const engine = await this.started();
    return engine.embed(
      inputs.map((input) => ("text" in input ? input : { image: placed(input.image) })),
      signal,
    );
  }

  async close(): Promise<void> {
    if (this.released) return;
    this.released = true;
    const { child, engine } = this.current;
    post(child, { kind: "release" });
    if (!this.isReady) {
      // It takes its time to start, and then ends by itself.
      hold(child, false);
      return;
    }
    const gone = new Promise((resolve) => child.once("close", resolve));
    (await engine).fail(released());
    // With nothing asked any more it would not be waited for.
    hold(child, true);
    await gone;
  }

  private async started(): Promise<PortEngine> {
    if (this.released) throw released();
    const { current } = this;
    try {
      return await current.engine;
    } catch (cause) {
      if (this.released) throw released();
      // The next question tries once more; of several that waited for this process, one begins that.
      if (this.current === current) this.restart();
      throw new EngineLostError(`The engine cannot be started again: ${(cause as Error).message}`, { cause });
    }
  }

  /** Starts another process when this one is gone. */
  private watch(child: ChildProcess, engine: PortEngine): void {
    this.isReady = true;
    child.once("close", (code, signal) => {
      engine.fail(this.released ? released() : new EngineLostError(`The engine broke down: ${ending(code, signal)}`));
      if (!this.released) this.restart();
    });
    // Whoever listens to a process is kept alive by it; one that has nothing to do should not be.
    hold(child, false);
  }

  private restart(): void {
    const next = startProcess(this.start);
    this.isReady = false;
    const engine = next.engine.then((loaded) => {
      this.watch(next.child, loaded);
      return loaded;
    });
    this.current = { ...next, engine };
    // Whoever asks next is told.
    engine.catch(() => {});
  }
}

function released(): Error {
  return new Error("The model was released; load it again");
}

/** An image as the other process finds it, which keeps the working directory that it was started in. */
function placed(image: ImageInput): ImageInput {
  return typeof image === "string" ? resolve(image) : image;
}

function startProcess(start: ProcessStart): EngineProcess {
  const child = forkEngine();
  const memory = { bytes: 0 };
  child.on("message", (message: FromProcess) => {
    if (message.kind === "memory") memory.bytes = message.bytes;
  });
  return { child, engine: loadIn(child, start), memory };
}

/** @throws Error if the model cannot be loaded */
async function loadIn(child: ChildProcess, start: ProcessStart): Promise<PortEngine> {
  const model = await new Promise<ModelInfo>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => reject(new Error(`While it was starting, ${ending(code, signal)}`)));
    child.on("message", (message: FromProcess) => {
      if (message.kind === "ready") resolve(message.model);
      else if (message.kind === "broken") reject(errorFrom(message.error));
    });
    post(child, { kind: "start", start });
  });
  return new PortEngine(
    model,
    {
      post: (message) => post(child, message),
      listen: (onMessage) =>
        child.on("message", (message: FromProcess) => {
          if (isOfRequest(message)) onMessage(message);
        }),
    },
    (busy) => hold(child, busy),
  );
}

function isOfRequest(message: FromProcess): message is FromEngine {
  return "id" in message;
}

function forkEngine(): ChildProcess {
  const isBuilt = import.meta.url.endsWith(".js");
  const file = new URL(isBuilt ? "./engine-process.js" : "./engine-process.ts", import.meta.url);
  return fork(fileURLToPath(file), {
    env: withLargePages(process.env),
    // From its sources the project runs through a loader. What the calling process was started with is not for this one.
    execArgv: isBuilt ? [] : ["--import", import.meta.resolve("tsx")],
    // Arrays arrive as arrays.
    serialization: "advanced",
    // Standard output belongs to the calling process, which may speak a protocol there.
    stdio: ["ignore", 2, 2, "ipc"],
  });
}

/** One that is gone takes no messages, which is told by its end. */
function post(child: ChildProcess, message: ToProcess): void {
  child.send(message, () => {});
}

/** Whether the calling process lives on for this one. */
function hold(child: ChildProcess, held: boolean): void {
  for (const handle of [child, child.channel]) held ? handle?.ref() : handle?.unref();
}

function ending(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === "SIGKILL") return "its process was killed (SIGKILL), as a system does when memory runs out";
  return signal ? `its process was ended by ${signal}` : `its process ended with code ${code}`;
}
