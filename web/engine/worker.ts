/** The web worker: loads the model exported with the page, then serves generation requests over its port. */
import { createPackedEngine } from "../../src/engine/packed-engine.ts";
import { engineService, servePort, type ToService } from "../../src/engine/port.ts";
import { parsePackedTokenizer } from "../../src/tokenizers/packed.ts";
import { deleteOldFiles, loadFiles, loadModelJson } from "./files.ts";
import { browserImages } from "./images.ts";
import type { FromWorker, ToWorker } from "./protocol.ts";
import { createOrtRunner, selectRuntime } from "./runtime.ts";

const post = (message: FromWorker) => postMessage(message);
let onEngineMessage: ((message: ToService) => void) | undefined;

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "load") load(data.url).catch((error) => post({ kind: "unable", message: errorMessage(error) }));
  else onEngineMessage?.(data);
});

async function load(url: string): Promise<void> {
  const model = await loadModelJson(url);
  const files = [model.tokenizer, ...model.weights];
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const onReceived = (received: number) => post({ kind: "progress", progress: { received, total } });
  const runtime = await selectRuntime(model.quantization);
  const vocabulary = await loadFiles(url, [model.tokenizer], onReceived);
  const tokenizer = parsePackedTokenizer(JSON.parse(new TextDecoder().decode(vocabulary)));
  const weights = await loadFiles(url, model.weights, (bytes) => onReceived(vocabulary.length + bytes));
  onReceived(total);
  const engine = await createPackedEngine(model, {
    tokenizer,
    weights,
    quantization: runtime.quantization,
    images: browserImages(),
    createRunner: (graph, outputs) => createOrtRunner(runtime, graph, outputs),
  });
  servePort(engineService(engine), {
    post,
    listen: (onMessage) => {
      onEngineMessage = onMessage;
    },
  });
  post({ kind: "ready", model: engine.model, device: runtime.device, threads: runtime.threads });
  await deleteOldFiles(url, files);
}

/** ONNX Runtime throws a bare number when it runs out of memory. */
function errorMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const outOfMemory = error instanceof RangeError || typeof error === "number" || /memory|bad_alloc/i.test(message);
  return outOfMemory && !/enough memory/.test(message)
    ? `Not enough memory for the model (${message}). Close other tabs, or use a device with more memory.`
    : message;
}
