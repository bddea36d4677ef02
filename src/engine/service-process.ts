/**
 * A service in a process of its own, so that the calling process is not blocked while it computes, its memory is in large
 * pages, and a crash (in native code, or out of memory) fails only the running calls, with an `EngineLostError`. The process is
 * then started again.
 */
import { type ChildProcess, fork } from "node:child_process";
import { setMaxListeners } from "node:events";
import { fileURLToPath } from "node:url";
import { EngineLostError, modelClosed } from "../errors.ts";
import { withLargePages } from "../runtime/environment.ts";
import {
  type ErrorMessage,
  type FromService,
  fromErrorMessage,
  type Methods,
  PortClient,
  type Service,
  type ToService,
} from "./port.ts";

/** A service as its process runs it. */
export interface HostedService<Info = unknown, M extends Methods = Methods> {
  /** Sent to the parent process when the service is ready. */
  readonly info: Info;
  readonly service: Service<M>;
  close(): Promise<void>;
}

/** What the module of a service exports. */
export interface ServiceModule<Options = never, Info = unknown, M extends Methods = Methods> {
  /** @param notify sends a value to the parent process while the service starts */
  startService(options: Options, notify: (value: unknown) => void): Promise<HostedService<Info, M>>;
}

/** Which service a process runs; all of it can be sent to another process. */
export interface ServiceStart {
  /** URL of a {@link ServiceModule}, as `import.meta.url` gives it. */
  readonly module: string;
  readonly options: never;
}

export type ToProcess = { readonly kind: "start"; readonly start: ServiceStart } | { readonly kind: "close" };

export type FromProcess =
  | { readonly kind: "notice"; readonly value: unknown }
  | { readonly kind: "ready"; readonly info: unknown }
  | { readonly kind: "broken"; readonly error: ErrorMessage }
  | { readonly kind: "memory"; readonly bytes: number };

interface Running<M extends Methods> {
  readonly child: ChildProcess;
  readonly client: Promise<PortClient<M>>;
  readonly memory: { bytes: number };
}

export interface StartOptions<Options> {
  /** URL of a {@link ServiceModule}. */
  readonly module: string;
  readonly options: Options;
  /** Called with what the service sends while it starts for the first time. */
  readonly onNotice?: (value: unknown) => void;
  /** Stops the start. */
  readonly signal?: AbortSignal;
}

export class ServiceProcess<Info, M extends Methods> implements AsyncDisposable {
  readonly info: Info;
  private readonly start: ServiceStart;
  /** The process, or its replacement that is starting. */
  private current: Running<M>;
  private isReady = true;
  private isClosed = false;

  private constructor(start: ServiceStart, info: Info, first: Running<M>, client: PortClient<M>) {
    this.start = start;
    this.info = info;
    this.current = first;
    this.watch(first.child, client);
  }

  /** @throws Error if the service cannot start, with its message and code */
  static async start<Options, Info, M extends Methods>({
    module,
    options,
    onNotice,
    signal,
  }: StartOptions<Options>): Promise<ServiceProcess<Info, M>> {
    signal?.throwIfAborted();
    const start = { module, options: options as never };
    const child = forkWorker();
    const kill = () => child.kill("SIGKILL");
    signal?.addEventListener("abort", kill);
    try {
      const memory = watchMemory(child);
      const { info, client } = await startIn<Info, M>(child, start, onNotice);
      return new ServiceProcess(start, info, { child, client: Promise.resolve(client), memory }, client);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", kill);
    }
  }

  /** Resident memory of the process in bytes, updated every few seconds. */
  get residentBytes(): number {
    return this.current.memory.bytes;
  }

  /** Streams the values of a call. @throws EngineLostError if the process exits meanwhile; MiniGPT4Error once it is closed */
  async *call<K extends keyof M & string>(
    method: K,
    args: M[K]["args"],
    signal?: AbortSignal,
  ): AsyncGenerator<M[K]["value"], void> {
    // One signal may cancel many calls, which Node would report as a leak.
    if (signal) setMaxListeners(0, signal);
    const client = await this.ready();
    yield* client.call(method, args, signal);
  }

  /** Fails the running calls and ends the process. Closing again has no effect. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    const { child, client } = this.current;
    post(child, { kind: "close" });
    if (!this.isReady) {
      // A process that is still starting exits by itself afterwards.
      keepAlive(child, false);
      return;
    }
    const exited = new Promise((resolve) => child.once("close", resolve));
    (await client).fail(modelClosed());
    // Without running calls, nothing else would wait for it.
    keepAlive(child, true);
    await exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async ready(): Promise<PortClient<M>> {
    if (this.isClosed) throw modelClosed();
    const { current } = this;
    try {
      return await current.client;
    } catch (cause) {
      if (this.isClosed) throw modelClosed();
      // The next call tries again; of several that waited for this process, the first one restarts it.
      if (this.current === current) this.restart();
      throw new EngineLostError(`The model process cannot be restarted: ${(cause as Error).message}`, { cause });
    }
  }

  /** Starts another process when this one exits. */
  private watch(child: ChildProcess, client: PortClient<M>): void {
    this.isReady = true;
    child.once("close", (code, signal) => {
      client.fail(this.isClosed ? modelClosed() : lost(code, signal));
      if (!this.isClosed) this.restart();
    });
    // An idle process must not keep this one alive.
    keepAlive(child, false);
  }

  private restart(): void {
    const child = forkWorker();
    this.isReady = false;
    const client = startIn<Info, M>(child, this.start).then((started) => {
      this.watch(child, started.client);
      return started.client;
    });
    this.current = { child, client, memory: watchMemory(child) };
    // The next call reports it.
    client.catch(() => {});
  }
}

function watchMemory(child: ChildProcess): { bytes: number } {
  const memory = { bytes: 0 };
  child.on("message", (message: FromProcess) => {
    if (message.kind === "memory") memory.bytes = message.bytes;
  });
  return memory;
}

/** @throws Error if the service cannot start */
async function startIn<Info, M extends Methods>(
  child: ChildProcess,
  start: ServiceStart,
  onNotice: (value: unknown) => void = () => {},
): Promise<{ info: Info; client: PortClient<M> }> {
  const info = await new Promise<Info>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => reject(new Error(`While starting, ${describeExit(code, signal)}`)));
    child.on("message", (message: FromProcess) => {
      if (message.kind === "ready") resolve(message.info as Info);
      else if (message.kind === "notice") onNotice(message.value);
      else if (message.kind === "broken") reject(fromErrorMessage(message.error));
    });
    post(child, { kind: "start", start });
  });
  const port = {
    post: (message: ToService) => post(child, message),
    listen: (onMessage: (message: FromService) => void) =>
      child.on("message", (message: FromProcess | FromService) => {
        if ("id" in message) onMessage(message);
      }),
  };
  return { info, client: new PortClient<M>(port, (busy) => keepAlive(child, busy)) };
}

function forkWorker(): ChildProcess {
  const isBuilt = import.meta.url.endsWith(".js");
  const file = new URL(isBuilt ? "./service-worker.js" : "./service-worker.ts", import.meta.url);
  return fork(fileURLToPath(file), {
    env: withLargePages(process.env),
    // The sources run through a loader. The parent's own arguments are not for this process.
    execArgv: isBuilt ? [] : ["--import", import.meta.resolve("tsx")],
    // Typed arrays arrive as typed arrays.
    serialization: "advanced",
    // Standard output belongs to the calling process, which may speak a protocol there.
    stdio: ["ignore", 2, 2, "ipc"],
  });
}

/** A process that has exited ignores messages; its end is reported by its `close` event. */
function post(child: ChildProcess, message: ToProcess | ToService): void {
  child.send(message, () => {});
}

/** Whether the child keeps the calling process alive. */
function keepAlive(child: ChildProcess, alive: boolean): void {
  for (const handle of [child, child.channel]) alive ? handle?.ref() : handle?.unref();
}

function lost(code: number | null, signal: NodeJS.Signals | null): EngineLostError {
  return new EngineLostError(
    `The model process exited unexpectedly: ${describeExit(code, signal)}. The request failed; the process restarts.`,
  );
}

function describeExit(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === "SIGKILL") return "it was killed (SIGKILL), as the system does when memory runs out";
  return signal ? `it was ended by ${signal}` : `it exited with code ${code}`;
}
