/** ONNX Runtime Web: selects the build and device for this browser, and runs graphs on it. */
import type { InferenceSession } from "onnxruntime-web";
import { constantsInMemory, writeModel } from "../../src/runtime/onnx.ts";
import { checkFeeds, type Runner } from "../../src/runtime/runner.ts";
import type { ArrayOf, DType, NdArray } from "../../src/tensor/array.ts";
import type { Graph, Value } from "../../src/tensor/graph.ts";
import type { Quantization } from "../../src/tensor/quant/quantization.ts";
import type { Device } from "./protocol.ts";

export interface Runtime {
  readonly device: Device;
  readonly threads: number;
  /** One of the builds of onnxruntime-web. */
  readonly ort: Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor">;
  /** Execution providers, preferred first. */
  readonly providers: readonly string[];
  /** The quantization in which the language model's matrices are loaded. */
  readonly quantization: Quantization;
}

/**
 * Selects WebGPU if the browser offers an adapter, else WebAssembly.
 * @param quantization of the exported weights
 * @throws Error if the browser has no WebAssembly
 */
export async function selectRuntime(quantization: Quantization): Promise<Runtime> {
  if (typeof WebAssembly !== "object") {
    throw new Error("WebAssembly is not available in this browser. Enable it, or use another browser.");
  }
  return (await hasWebGpu()) ? webGpu(quantization) : webAssembly();
}

async function hasWebGpu(): Promise<boolean> {
  const { gpu } = navigator as Navigator & { readonly gpu?: { requestAdapter(): Promise<unknown> } };
  return Boolean(await gpu?.requestAdapter().catch(() => null));
}

async function webGpu(quantization: Quantization): Promise<Runtime> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = 1;
  return { device: "WebGPU", threads: 1, ort, providers: ["webgpu", "wasm"], quantization };
}

/** Loads matrices as float32: WebAssembly unpacks 4-bit matrices in each call, which takes longer than the product itself. */
async function webAssembly(): Promise<Runtime> {
  const [ort, { default: wasm }] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  // Threads need shared memory, which browsers allow only on cross-origin isolated pages.
  const threads = globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = threads;
  return { device: "WebAssembly", threads, ort, providers: ["wasm"], quantization: "float32" };
}

/** Creates a runner for a graph and frees the graph's constants. */
export async function createOrtRunner<Output extends string>(
  { ort, providers }: Pick<Runtime, "ort" | "providers">,
  graph: Graph,
  outputs: Readonly<Record<Output, Value>>,
): Promise<Runner<Output>> {
  const weights = constantsInMemory(graph, Object.values<Value>(outputs), "model.weights");
  const model = await writeModel(graph, outputs, weights);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: providers,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    ...(weights.data.length > 0 && { externalData: [{ path: weights.location, data: weights.data }] }),
  });
  // The session has its own copy of the weights.
  graph.initializers.clear();
  return new OrtRunner<Output>(ort, session, graph.inputs);
}

/** onnxruntime-web allows one run at a time across all sessions: each run waits for this one. */
let lastRun: Promise<unknown> = Promise.resolve();

class OrtRunner<Output extends string> implements Runner<Output> {
  readonly #ort: Runtime["ort"];
  readonly #session: InferenceSession;
  readonly #inputs: readonly Value[];

  constructor(ort: Runtime["ort"], session: InferenceSession, inputs: readonly Value[]) {
    this.#ort = ort;
    this.#session = session;
    this.#inputs = inputs;
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    checkFeeds(this.#inputs, feeds);
    const tensors = this.#session.inputNames.map((name) => {
      const { dtype, data, shape } = feeds[name] as NdArray;
      return [name, new this.#ort.Tensor(dtype as "float32", data as Float32Array, shape)] as const;
    });
    const run = lastRun.then(() => this.#session.run(Object.fromEntries(tensors)));
    lastRun = run.catch(() => {});
    const arrays = Object.entries(await run).map(([name, { type, dims, data }]) => [
      name,
      { dtype: type as DType, shape: [...dims], data: data as ArrayOf[DType] },
    ]);
    return Object.fromEntries(arrays) as Record<Output, NdArray>;
  }

  close(): Promise<void> {
    return this.#session.release();
  }
}
