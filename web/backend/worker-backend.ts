/** A model that runs in this browser, in a web worker. */
import type { LoadProgress, Placement } from "../../src/browser/index.ts";
import { connectEngine, type WorkerEngine } from "../../src/browser/worker.ts";
import type { GenerationRequest } from "../../src/engine/engine.ts";
import { RequestError } from "../../src/errors.ts";
import {
  type Backend,
  BackendError,
  type ChatRequest,
  type GenerationEvent,
  isDescribeRequest,
  type ModelInfo,
} from "./backend.ts";

interface Loaded {
  readonly engine: WorkerEngine;
  readonly info: ModelInfo;
}

export class WorkerBackend implements Backend {
  readonly #url: string;
  readonly #listeners = new Set<(progress: LoadProgress) => void>();
  #loading: Promise<Loaded> | undefined;

  /** @param url address of `model.json` */
  constructor(url: string) {
    this.#url = url;
  }

  /** Loads the model on the first call; after a failure the next call tries again. */
  async info(signal?: AbortSignal, onProgress?: (progress: LoadProgress) => void): Promise<ModelInfo> {
    if (onProgress) this.#listeners.add(onProgress);
    try {
      const { info } = await this.#load();
      signal?.throwIfAborted();
      return info;
    } finally {
      if (onProgress) this.#listeners.delete(onProgress);
    }
  }

  async *generate(request: ChatRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    const { engine } = await this.#load();
    signal.throwIfAborted();
    try {
      for await (const event of engine.generate(await toGenerationRequest(request), signal)) {
        if (event.kind === "text") yield { kind: "text", text: event.text };
        else if (event.kind === "end") yield { kind: "end", reason: event.reason, tokens: event.tokens };
      }
    } catch (error) {
      signal.throwIfAborted();
      throw toBackendError(error);
    }
  }

  #load(): Promise<Loaded> {
    this.#loading ??= this.#start().catch((error) => {
      this.#loading = undefined;
      throw new BackendError("unable", error instanceof Error ? error.message : String(error));
    });
    return this.#loading;
  }

  async #start(): Promise<Loaded> {
    const worker = new Worker(new URL("../engine/worker.ts", import.meta.url), { type: "module", name: "engine" });
    const engine = await connectEngine(worker, this.#url, {
      onProgress: (progress) => {
        for (const listener of this.#listeners) listener(progress);
      },
      // The next request starts a new worker.
      onError: () => {
        this.#loading = undefined;
      },
    });
    const { name, contextLength, tokensPerImage } = engine.model;
    return { engine, info: { name, contextLength, tokensPerImage, runsOn: placement(engine) } };
  }
}

function placement({ device, threads }: Placement): string {
  if (device === "webgpu") return "WebGPU";
  return threads > 1 ? `WebAssembly, ${threads} threads` : "WebAssembly";
}

async function toGenerationRequest(request: ChatRequest): Promise<GenerationRequest> {
  const { messages, system, options } = request;
  const blobs = messages.flatMap(({ images }) => images);
  const turns = messages.map(({ role, text, images }) => ({ role, text, images: images.length }));
  return {
    ...options,
    turns: system === undefined && isDescribeRequest(request) ? "describe" : turns,
    system,
    images: await Promise.all(blobs.map(async (blob) => new Uint8Array(await blob.arrayBuffer()))),
    overflow: "refuse",
  };
}

function toBackendError(error: unknown): BackendError {
  if (error instanceof BackendError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof RequestError) {
    return new BackendError(error.code === "invalid_image" ? "image" : "question", message);
  }
  return new BackendError("failed", message);
}
