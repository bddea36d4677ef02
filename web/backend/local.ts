/** A model that runs in this browser, in a worker of its own. */
import { type GenerationRequest, RequestError } from "../../src/engine/engine.ts";
import type { FromEngine } from "../../src/engine/port.ts";
import { PortEngine } from "../../src/engine/port.ts";
import type { FromWorker, ToWorker } from "../engine/protocol.ts";
import {
  type AnswerRequest,
  asksForDescription,
  type Backend,
  BackendError,
  type GenerationEvent,
  type LoadProgress,
  type ModelInfo,
} from "./backend.ts";

interface Loaded {
  readonly engine: PortEngine;
  readonly info: ModelInfo;
}

export class LocalBackend implements Backend {
  readonly #url: string;
  readonly #listeners = new Set<(progress: LoadProgress) => void>();
  #worker: Worker | undefined;
  #loading: Promise<Loaded> | undefined;

  /** @param url address of `model.json` */
  constructor(url: string) {
    this.#url = url;
  }

  /** Loads the model if that has not been done; after a failure the next call tries again. */
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

  async *answer(request: AnswerRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    const { engine } = await this.#load();
    signal.throwIfAborted();
    try {
      for await (const event of engine.generate(await questionOf(request), signal)) {
        if (event.kind === "text") yield { kind: "text", text: event.text };
        else if (event.kind === "end") yield { kind: "end", reason: event.reason, tokens: event.tokens };
      }
    } catch (problem) {
      signal.throwIfAborted();
      throw backendError(problem);
    }
  }

  #load(): Promise<Loaded> {
    this.#loading ??= this.#start().catch((problem) => {
      this.#worker?.terminate();
      this.#loading = undefined;
      throw new BackendError("unable", problem instanceof Error ? problem.message : String(problem));
    });
    return this.#loading;
  }

  #start(): Promise<Loaded> {
    const worker = new Worker(new URL("../engine/worker.ts", import.meta.url), { type: "module", name: "engine" });
    this.#worker = worker;
    let hear: (message: FromEngine) => void = () => {};
    let engine: PortEngine | undefined;
    const post = (message: ToWorker) => worker.postMessage(message);
    return new Promise((resolve, reject) => {
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        const broken = new Error(event.message || "The part of the page that runs the model has broken down");
        reject(broken);
        engine?.fail(broken);
        // Whoever asks next has it started anew.
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
          const listen = (onMessage: typeof hear) => {
            hear = onMessage;
          };
          const { name, contextLength, tokensPerImage } = model;
          const runsOn = device === "WebAssembly" && threads > 1 ? `${device}, ${threads} threads` : device;
          engine = new PortEngine(model, { post, listen });
          resolve({
            engine,
            info: { name, contextLength, tokensPerImage, runsOn },
          });
        } else {
          hear(data);
        }
      });
      post({ kind: "load", url: this.#url });
    });
  }
}

async function questionOf(request: AnswerRequest): Promise<GenerationRequest> {
  const { messages, system, decoding } = request;
  const blobs = messages.flatMap(({ images }) => images);
  const turns = messages.map(({ role, text, images }) => ({ role, text, images: images.length }));
  return {
    ...decoding,
    turns: system === undefined && asksForDescription(request) ? "describe" : turns,
    ...(system !== undefined && { system }),
    images: await Promise.all(blobs.map(async (blob) => new Uint8Array(await blob.arrayBuffer()))),
    overflow: "refuse",
  };
}

function backendError(problem: unknown): BackendError {
  if (problem instanceof BackendError) return problem;
  const message = problem instanceof Error ? problem.message : String(problem);
  if (problem instanceof RequestError) {
    return new BackendError(problem.code === "image" ? "image" : "question", message);
  }
  return new BackendError("failed", message);
}
