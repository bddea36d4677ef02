/** Loads a model, on the calling thread or in a worker. */
import { createPackedEngine } from "../engine/packed-engine.ts";
import { parsePackedTokenizer } from "../tokenizers/packed.ts";
import { BrowserModel } from "./browser-model.ts";
import { deleteOldFiles, type Fetch, type LoadProgress, loadFiles, loadModelJson, modelJsonUrl } from "./files.ts";
import { browserImages } from "./images.ts";
import { type BrowserDevice, createOrtRunner, detectDevice, type OrtModule } from "./ort-runner.ts";
import { type ConnectOptions, connectEngine, type ModelWorker } from "./worker.ts";

export interface LoadModelOptions {
  /** A build of onnxruntime-web: `onnxruntime-web/webgpu` has both devices, `onnxruntime-web/wasm` is smaller. */
  readonly ort: OrtModule;
  /** @default the result of `detectDevice()` */
  readonly device?: BrowserDevice;
  /**
   * Threads of the WebAssembly device. More than one needs a cross-origin isolated page.
   * @default one for each processor, at most 8; 1 on a page that is not isolated
   */
  readonly threads?: number;
  /** Called as the files arrive, from the network or the browser's cache. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** How files are requested, for example with credentials. @default globalThis.fetch */
  readonly fetch?: Fetch;
}

/**
 * Loads a model that `minigpt4 export web` wrote, on the calling thread. Computing blocks that thread: in a page, prefer a worker
 * ({@link connectModel}). The files are verified, and kept in the browser's cache for the next visit.
 *
 * @param url address of the exported folder or its `model.json`; relative ones start at the page or the worker's script
 * @throws Error naming the file that is missing, incomplete or damaged
 *
 * @example
 * ```ts
 * import { detectDevice, loadModel } from "minigpt4/browser";
 *
 * const device = await detectDevice();
 * const ort = await (device === "webgpu" ? import("onnxruntime-web/webgpu") : import("onnxruntime-web/wasm"));
 * const model = await loadModel("https://example.com/models/nano/", {
 *   ort,
 *   device,
 *   onProgress: ({ received, total }) => console.log(`${Math.round((100 * received) / total)} %`),
 * });
 * console.log(model.model.contextLength);
 * ```
 */
export async function loadModel(url: string, options: LoadModelOptions): Promise<BrowserModel> {
  const { ort, onProgress, fetch = (address) => globalThis.fetch(address) } = options;
  const base = modelJsonUrl(url);
  const model = await loadModelJson(base, fetch);
  const files = [model.tokenizer, ...model.weights];
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const onReceived = (received: number) => onProgress?.({ received, total });

  const device = options.device ?? (await detectDevice());
  const threads = device === "webgpu" ? 1 : (options.threads ?? defaultThreads());
  ort.env.wasm.numThreads = threads;

  const vocabulary = await loadFiles({ base, files: [model.tokenizer], fetch, onReceived });
  const weights = await loadFiles({
    base,
    files: model.weights,
    fetch,
    onReceived: (bytes) => onReceived(vocabulary.length + bytes),
  });
  onReceived(total);
  const engine = await createPackedEngine(model, {
    tokenizer: parsePackedTokenizer(JSON.parse(new TextDecoder().decode(vocabulary))),
    weights,
    // WebAssembly unpacks 4-bit matrices in each call, which takes longer than the product itself.
    quantization: device === "webgpu" ? model.quantization : "float32",
    images: browserImages(),
    createRunner: (graph, outputs) => createOrtRunner({ ort, device }, graph, outputs),
  });
  await deleteOldFiles(base, files);
  return new BrowserModel(engine, { device, threads });
}

/**
 * Loads a model in a worker that calls `serveModel`, so that the page stays responsive.
 *
 * @param url address of the exported folder or its `model.json`, relative to the page
 * @returns the model; `close()` ends the worker
 * @throws Error naming the file that is missing, incomplete or damaged; the worker is ended
 *
 * @example
 * ```ts
 * import { connectModel } from "minigpt4/browser";
 *
 * const worker = new Worker(new URL("./model-worker.js", import.meta.url), { type: "module" });
 * const model = await connectModel(worker, "/models/nano/", {
 *   onProgress: ({ received, total }) => console.log(`${Math.round((100 * received) / total)} %`),
 * });
 * console.log(await model.describe(await (await fetch("/cat.jpg")).blob()));
 * ```
 */
export async function connectModel(worker: ModelWorker, url: string, options?: ConnectOptions): Promise<BrowserModel> {
  const engine = await connectEngine(worker, url, options);
  return new BrowserModel(engine, engine);
}

/** Threads need shared memory, which browsers allow only on cross-origin isolated pages. */
function defaultThreads(): number {
  return globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
}
