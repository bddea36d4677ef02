/**
 * Calls to a service in another process or on another thread. A service has methods that stream values; each call can be
 * cancelled, and fails alone. {@link PortEngine} and {@link serveEngine} are the two sides of an engine.
 */
import { type ErrorCode, MiniGPT4Error, RequestError, requestErrorCodes } from "../errors.ts";
import type { EmbeddingInput, Engine, GenerationEvent, GenerationRequest, ModelInfo } from "./engine.ts";

/** The methods of a service by name: what a call sends, and the values that it streams back. */
export type Methods = Readonly<Record<string, { readonly args: unknown; readonly value: unknown }>>;

export type Service<M extends Methods> = {
  readonly [K in keyof M]: (args: M[K]["args"], signal: AbortSignal) => AsyncIterable<M[K]["value"]>;
};

export type ToService =
  | { readonly kind: "call"; readonly id: number; readonly method: string; readonly args: unknown }
  | { readonly kind: "cancel"; readonly id: number };

/** Each call ends with one `done` or `failed`, also after it was cancelled. */
export type FromService =
  | { readonly kind: "value"; readonly id: number; readonly value: unknown }
  | { readonly kind: "done"; readonly id: number }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorMessage };

/** One side of a message channel. */
export interface Port<Out, In> {
  post(message: Out): void;
  /** Called once. */
  listen(onMessage: (message: In) => void): void;
}

/** An error as a message, which cannot carry its class. */
export interface ErrorMessage {
  readonly message: string;
  readonly code?: ErrorCode;
}

export function toErrorMessage(error: unknown): ErrorMessage {
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof MiniGPT4Error ? { message, code: error.code } : { message };
}

export function fromErrorMessage({ message, code }: ErrorMessage): Error {
  const requestCode = requestErrorCodes.find((known) => known === code);
  if (requestCode) return new RequestError(requestCode, message);
  return code ? new MiniGPT4Error(code, message) : new Error(message);
}

/** Calls the methods of a service over a port. */
export class PortClient<M extends Methods> {
  private readonly port: Port<ToService, FromService>;
  private readonly onBusy: (busy: boolean) => void;
  private readonly calls = new Map<number, Channel<unknown>>();
  private next = 0;

  /** @param onBusy called with true for the first running call, and with false when the last one has ended */
  constructor(port: Port<ToService, FromService>, onBusy: (busy: boolean) => void = () => {}) {
    this.port = port;
    this.onBusy = onBusy;
    port.listen((message) => this.receive(message));
  }

  /** Streams the values of a call. To stop iterating, or to abort the signal, cancels it. */
  async *call<K extends keyof M & string>(
    method: K,
    args: M[K]["args"],
    signal?: AbortSignal,
  ): AsyncGenerator<M[K]["value"], void> {
    signal?.throwIfAborted();
    const id = this.next++;
    const channel = new Channel<M[K]["value"]>();
    const abort = () => channel.end(signal?.reason);
    signal?.addEventListener("abort", abort);
    this.port.post({ kind: "call", id, method, args });
    if (this.calls.size === 0) this.onBusy(true);
    this.calls.set(id, channel);
    try {
      yield* channel;
    } finally {
      signal?.removeEventListener("abort", abort);
      // The call counts as running until the service has ended it.
      if (this.calls.has(id)) this.port.post({ kind: "cancel", id });
    }
  }

  /** Fails all calls, because the service is gone. */
  fail(error: Error): void {
    for (const channel of this.calls.values()) channel.end(error);
    if (this.calls.size > 0) this.onBusy(false);
    this.calls.clear();
  }

  private receive(message: FromService): void {
    const channel = this.calls.get(message.id);
    if (!channel) return;
    if (message.kind === "value") {
      channel.push(message.value);
      return;
    }
    this.calls.delete(message.id);
    channel.end(message.kind === "failed" ? fromErrorMessage(message.error) : undefined);
    if (this.calls.size === 0) this.onBusy(false);
  }
}

/** Serves calls that arrive over a port. */
export function servePort<M extends Methods>(service: Service<M>, port: Port<FromService, ToService>): void {
  const running = new Map<number, AbortController>();

  async function run({ id, method, args }: Extract<ToService, { kind: "call" }>): Promise<void> {
    const controller = new AbortController();
    running.set(id, controller);
    try {
      const serve = service[method];
      if (!serve) throw new Error(`The service has no method "${method}"`);
      for await (const value of serve(args, controller.signal)) port.post({ kind: "value", id, value });
      port.post({ kind: "done", id });
    } catch (error) {
      port.post({ kind: "failed", id, error: toErrorMessage(error) });
    } finally {
      running.delete(id);
    }
  }

  port.listen((message) => {
    if (message.kind === "cancel") running.get(message.id)?.abort();
    else void run(message);
  });
}

/** The methods of an engine. */
export type EngineMethods = {
  generate: { args: GenerationRequest; value: GenerationEvent };
  embed: { args: readonly EmbeddingInput[]; value: Float32Array[] };
};

export function engineService(engine: Engine): Service<EngineMethods> {
  return {
    generate: (request, signal) => engine.generate(request, signal),
    async *embed(inputs, signal) {
      yield await engine.embed(inputs, signal);
    },
  };
}

/** An engine on the other side of a port. Whoever started that side closes it. */
export class PortEngine implements Pick<Engine, "model" | "generate" | "embed"> {
  readonly model: ModelInfo;
  private readonly client: Pick<PortClient<EngineMethods>, "call">;

  constructor(model: ModelInfo, client: Pick<PortClient<EngineMethods>, "call">) {
    this.model = model;
    this.client = client;
  }

  generate(request: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    return this.client.call("generate", request, signal);
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    let embeddings: Float32Array[] = [];
    for await (const value of this.client.call("embed", inputs, signal)) embeddings = value;
    return embeddings;
  }
}

/** Values that one side pushes and the other iterates. */
export class Channel<T> implements AsyncIterable<T> {
  private readonly values: T[] = [];
  private ending: { readonly error?: unknown } | undefined;
  private wake: (() => void) | undefined;

  push(value: T): void {
    if (this.ending) return;
    this.values.push(value);
    this.wake?.();
  }

  /** Ends the iteration after the values pushed before, with the error if there is one. */
  end(error?: unknown): void {
    this.ending ??= error === undefined ? {} : { error };
    this.wake?.();
  }

  /** For one reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    for (;;) {
      while (this.values.length > 0) yield this.values.shift() as T;
      if (this.ending) {
        if ("error" in this.ending) throw this.ending.error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      this.wake = undefined;
    }
  }
}
