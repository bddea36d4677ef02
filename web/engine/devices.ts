/** Where a model can run in this browser, and the build of ONNX Runtime that does it. */
import type { Precision } from "../../src/generation/language-model.ts";
import type { Ort } from "./ort-runner.ts";
import type { Device } from "./protocol.ts";

export interface Place {
  readonly device: Device;
  readonly threads: number;
  readonly ort: Ort;
  readonly providers: readonly string[];
  /** What the language model's matrices are read as. */
  readonly precision: Precision;
}

/** @throws Error saying what the browser lacks */
export async function choosePlace(precision: Precision): Promise<Place> {
  if (typeof WebAssembly !== "object") {
    throw new Error("This browser has no WebAssembly, or it is switched off; the model needs it");
  }
  return (await hasWebGpu()) ? webGpu(precision) : webAssembly();
}

async function hasWebGpu(): Promise<boolean> {
  const { gpu } = navigator as Navigator & { readonly gpu?: { requestAdapter(): Promise<unknown> } };
  return Boolean(await gpu?.requestAdapter().catch(() => null));
}

async function webGpu(precision: Precision): Promise<Place> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = 1;
  return { device: "WebGPU", threads: 1, ort, providers: ["webgpu", "wasm"], precision };
}

/** Products with 4-bit matrices unpack them at each call there, which takes longer than the product: they are unpacked once. */
async function webAssembly(): Promise<Place> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  // Threads share memory, which browsers allow only where the host sends the headers for it.
  const threads = globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = threads;
  return { device: "WebAssembly", threads, ort, providers: ["wasm"], precision: "float32" };
}
