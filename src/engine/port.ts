/** An engine that is asked over a port. */
import {
  type EmbeddingInput,
  type Engine,
  type GenerationEvent,
  type GenerationRequest,
  type ModelInfo,
  RequestError,
} from "./engine.ts";

/** Values that are pushed on one side and awaited on the other. */
export class Channel<T> implements AsyncIterable<T> {
  private readonly values: T[] = [];
  private ending: { readonly error?: unknown } | undefined;
  private wake: (() => void) | undefined;

  push(value: T): void {
    if (this.ending) return;
    this.values.push(value);
    this.wake?.();
  }

  /** No more values come. What was pushed before is still read, and then, if there is one, the error is thrown. */
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

// What an engine in another process, or on another thread, and whoever asks it say to each other.

export type ToEngine =
  | { readonly kind: "answer"; readonly id: number; readonly question: GenerationRequest }
  | { readonly kind: "embed"; readonly id: number; readonly inputs: readonly EmbeddingInput[] }
  | { readonly kind: "cancel"; readonly id: number };

/** Each request has one `done` or `failed`, which is the last of it, also after it was cancelled. */
export type FromEngine =
  | { readonly kind: "event"; readonly id: number; readonly event: GenerationEvent }
  | { readonly kind: "embeddings"; readonly id: number; readonly embeddings: Float32Array[] }
  | { readonly kind: "done"; readonly id: number }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorMessage };

/** One side of a channel between the two. */
export interface Port<Out, In> {
  post(message: Out): void;
  /** Called once. */
  listen(onMessage: (message: In) => void): void;
}

/** An error as it crosses over, where its class would be lost. */
export interface ErrorMessage {
  readonly message: string;
  readonly code?: RequestError["code"];
}

export function errorMessage(error: unknown): ErrorMessage {
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof RequestError ? { message, code: error.code } : { message };
}

export function errorFrom({ message, code }: ErrorMessage): Error {
  return code ? new RequestError(code, message) : new Error(message);
}

type Arrived = Extract<FromEngine, { kind: "event" | "embeddings" }>;

/** It frees nothing: whoever made the other side ends it. */
export class PortEngine implements Omit<Engine, "close"> {
  readonly model: ModelInfo;
  private readonly port: Port<ToEngine, FromEngine>;
  private readonly onBusy: (busy: boolean) => void;
  private readonly open = new Map<number, Channel<Arrived>>();
  private next = 0;

  /** @param onBusy told when the first request is on its way, and when the last one has ended */
  constructor(model: ModelInfo, port: Port<ToEngine, FromEngine>, onBusy: (busy: boolean) => void = () => {}) {
    this.model = model;
    this.port = port;
    this.onBusy = onBusy;
    port.listen((message) => this.take(message));
  }

  async *generate(question: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    for await (const message of this.request((id) => ({ kind: "answer", id, question }), signal)) {
      if (message.kind === "event") yield message.event;
    }
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    let embeddings: Float32Array[] = [];
    for await (const message of this.request((id) => ({ kind: "embed", id, inputs }), signal)) {
      if (message.kind === "embeddings") embeddings = message.embeddings;
    }
    return embeddings;
  }

  /** Ends all requests with an error, because the other side is gone. */
  fail(error: Error): void {
    for (const channel of this.open.values()) channel.end(error);
    if (this.open.size > 0) this.onBusy(false);
    this.open.clear();
  }

  private async *request(message: (id: number) => ToEngine, signal?: AbortSignal): AsyncGenerator<Arrived, void> {
    signal?.throwIfAborted();
    const id = this.next++;
    const channel = new Channel<Arrived>();
    const abort = () => channel.end(signal?.reason);
    signal?.addEventListener("abort", abort);
    this.port.post(message(id));
    if (this.open.size === 0) this.onBusy(true);
    this.open.set(id, channel);
    try {
      yield* channel;
    } finally {
      signal?.removeEventListener("abort", abort);
      // It is counted as open until the other side has really ended it.
      if (this.open.has(id)) this.port.post({ kind: "cancel", id });
    }
  }

  private take(message: FromEngine): void {
    const channel = this.open.get(message.id);
    if (!channel) return;
    if (message.kind === "event" || message.kind === "embeddings") {
      channel.push(message);
      return;
    }
    this.open.delete(message.id);
    channel.end(message.kind === "failed" ? errorFrom(message.error) : undefined);
    if (this.open.size === 0) this.onBusy(false);
  }
}

// The engine's side of a port: answers what is asked over it.

export function servePort(engine: Engine, port: Port<FromEngine, ToEngine>): void {
  const running = new Map<number, AbortController>();

  async function take(message: Exclude<ToEngine, { kind: "cancel" }>): Promise<void> {
    const { id } = message;
    const controller = new AbortController();
    running.set(id, controller);
    try {
      if (message.kind === "embed") {
        port.post({ kind: "embeddings", id, embeddings: await engine.embed(message.inputs, controller.signal) });
      } else {
        for await (const event of engine.generate(message.question, controller.signal)) {
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
