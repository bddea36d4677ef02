/** A model that runs in this browser, in a web worker. */
import type { GenerationRequest } from "../../src/engine/engine.ts";
import { type EngineMethods, type FromService, PortClient, PortEngine } from "../../src/engine/port.ts";
import { RequestError } from "../../src/errors.ts";
import type { FromWorker, ToWorker } from "../engine/protocol.ts";
import {
  type Backend,
  BackendError,
  type ChatRequest,
  type GenerationEvent,
  isDescribeRequest,
  type LoadProgress,
  type ModelInfo,
} from "./backend.ts";

interface Loaded {
  readonly engine: PortEngine;
  readonly info: ModelInfo;
}

export class WorkerBackend implements Backend {
  readonly #url: string;
  readonly #listeners = new Set<(progress: LoadProgress) => void>();
  #worker: Worker | undefined;
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
      this.#worker?.terminate();
      this.#loading = undefined;
      throw new BackendError("unable", error instanceof Error ? error.message : String(error));
    });
    return this.#loading;
  }

  #start(): Promise<Loaded> {
    const worker = new Worker(new URL("../engine/worker.ts", import.meta.url), { type: "module", name: "engine" });
    this.#worker = worker;
    let onEngineMessage: (message: FromService) => void = () => {};
    let client: PortClient<EngineMethods> | undefined;
    const post = (message: ToWorker) => worker.postMessage(message);
    return new Promise((resolve, reject) => {
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        const error = new Error(event.message || "The worker that runs the model stopped unexpectedly");
        reject(error);
        client?.fail(error);
        // The next request starts a new worker.
        worker.terminate();
        this.#loading = undefined;
      });
      worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
        if (data.kind === "progress") {
          for (const listener of this.#listeners) listener(data.progress);
        } else if (data.kind === "unable") {
          reject(new Error(data.message));
        } else if (data.kind === "ready") {
          const { model, device, threads } = data;
          const listen = (onMessage: typeof onEngineMessage) => {
            onEngineMessage = onMessage;
          };
          const { name, contextLength, tokensPerImage } = model;
          const runsOn = device === "WebAssembly" && threads > 1 ? `${device}, ${threads} threads` : device;
          client = new PortClient({ post, listen });
          const engine = new PortEngine(model, client);
          resolve({ engine, info: { name, contextLength, tokensPerImage, runsOn } });
        } else {
          onEngineMessage(data);
        }
      });
      post({ kind: "load", url: this.#url });
    });
  }
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
