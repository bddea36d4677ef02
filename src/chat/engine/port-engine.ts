/** An engine that is asked over a port. */
import { Channel } from "./channel.ts";
import type { AnswerEvent, EmbeddingInput, Engine, ModelCard, Question } from "./engine.ts";
import { errorFrom, type FromEngine, type Port, type ToEngine } from "./messages.ts";

type Arrived = Extract<FromEngine, { kind: "event" | "embeddings" }>;

/** It frees nothing: whoever made the other side ends it. */
export class PortEngine implements Omit<Engine, "release"> {
  readonly model: ModelCard;
  private readonly port: Port<ToEngine, FromEngine>;
  private readonly onBusy: (busy: boolean) => void;
  private readonly open = new Map<number, Channel<Arrived>>();
  private next = 0;

  /** @param onBusy told when the first request is on its way, and when the last one has ended */
  constructor(model: ModelCard, port: Port<ToEngine, FromEngine>, onBusy: (busy: boolean) => void = () => {}) {
    this.model = model;
    this.port = port;
    this.onBusy = onBusy;
    port.listen((message) => this.take(message));
  }

  async *answer(question: Question, signal?: AbortSignal): AsyncGenerator<AnswerEvent, void> {
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
