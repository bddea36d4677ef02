/** A model in a web worker: the two sides of its messages. */
import type { Engine, ModelInfo } from "../engine/engine.ts";
import {
  type EngineMethods,
  engineService,
  type FromService,
  PortClient,
  PortEngine,
  servePort,
  type ToService,
} from "../engine/port.ts";
import { modelClosed } from "../errors.ts";
import type { BrowserModel } from "./browser-model.ts";
import type { LoadProgress } from "./files.ts";
import type { Placement } from "./ort-runner.ts";

type ToWorker =
  | ToService
  | {
      readonly kind: "load";
      /** Absolute address of the exported folder or its `model.json`. */
      readonly url: string;
    };

/** Any number of `progress`, then `ready` or `unable`; after `ready`, the engine's messages. */
type FromWorker =
  | FromService
  | { readonly kind: "progress"; readonly progress: LoadProgress }
  | { readonly kind: "ready"; readonly model: ModelInfo; readonly placement: Placement }
  | { readonly kind: "unable"; readonly message: string };

/** What `connectModel` needs of a `Worker`. */
export type ModelWorker = Pick<Worker, "postMessage" | "addEventListener" | "terminate">;

export interface ConnectOptions {
  /** Called as the files arrive, from the network or the browser's cache. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** Called if the worker fails after the model was loaded, for example when memory runs out. Running requests fail. */
  readonly onError?: (error: Error) => void;
}

/**
 * Serves a model from a web worker. Call it when the worker starts; the page calls `connectModel`.
 *
 * @param load loads the model that the page names, usually with `loadModel`
 *
 * @example
 * ```ts
 * import * as ort from "onnxruntime-web/webgpu";
 * import { loadModel, serveModel } from "minigpt4/browser";
 *
 * serveModel((url, onProgress) => loadModel(url, { ort, onProgress }));
 * ```
 */
export function serveModel(
  load: (url: string, onProgress: (progress: LoadProgress) => void) => Promise<BrowserModel>,
): void {
  const post = (message: FromWorker) => postMessage(message);
  let onEngineMessage: ((message: ToService) => void) | undefined;

  async function start(url: string): Promise<void> {
    const model = await load(url, (progress) => post({ kind: "progress", progress }));
    servePort(engineService(model), {
      post,
      listen: (onMessage) => {
        onEngineMessage = onMessage;
      },
    });
    post({ kind: "ready", model: model.model, placement: { device: model.device, threads: model.threads } });
  }

  addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
    if (data.kind === "load") start(data.url).catch((error) => post({ kind: "unable", message: errorMessage(error) }));
    else onEngineMessage?.(data);
  });
}

/** The page's side: loads a model in a worker that calls {@link serveModel}. @throws Error if it cannot be loaded; the worker is ended */
export function connectEngine(
  worker: ModelWorker,
  url: string,
  { onProgress, onError }: ConnectOptions = {},
): Promise<WorkerEngine> {
  const post = (message: ToWorker) => worker.postMessage(message);
  let onEngineMessage: (message: FromService) => void = () => {};
  let engine: WorkerEngine | undefined;
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      worker.terminate();
      reject(error);
      if (!engine) return;
      engine.fail(error);
      onError?.(error);
    };
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      fail(new Error(event.message || "The worker that runs the model stopped unexpectedly"));
    });
    worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
      if (data.kind === "progress") onProgress?.(data.progress);
      else if (data.kind === "unable") fail(new Error(data.message));
      else if (data.kind === "ready") {
        const listen = (onMessage: typeof onEngineMessage) => {
          onEngineMessage = onMessage;
        };
        engine = new WorkerEngine(data.model, data.placement, { client: new PortClient({ post, listen }), worker });
        resolve(engine);
      } else {
        onEngineMessage(data);
      }
    });
    post({ kind: "load", url: new URL(url, globalThis.location?.href).href });
  });
}

interface WorkerConnection {
  readonly client: PortClient<EngineMethods>;
  readonly worker: ModelWorker;
}

export class WorkerEngine extends PortEngine implements Engine, Placement {
  readonly device: Placement["device"];
  readonly threads: number;
  private readonly connection: WorkerConnection;
  private failure: Error | undefined;

  constructor(model: ModelInfo, { device, threads }: Placement, connection: WorkerConnection) {
    super(model, {
      call: (...args) => {
        if (this.failure) throw this.failure;
        return connection.client.call(...args);
      },
    });
    this.device = device;
    this.threads = threads;
    this.connection = connection;
  }

  /** Fails running and later requests. */
  fail(error: Error): void {
    this.failure ??= error;
    this.connection.client.fail(error);
  }

  async close(): Promise<void> {
    this.fail(modelClosed());
    this.connection.worker.terminate();
  }
}

/** ONNX Runtime throws a bare number when it runs out of memory. */
function errorMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const outOfMemory = error instanceof RangeError || typeof error === "number" || /memory|bad_alloc/i.test(message);
  return outOfMemory && !/enough memory/.test(message)
    ? `Not enough memory for the model (${message}). Close other tabs, or use a device with more memory.`
    : message;
}
