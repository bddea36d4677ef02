/** Runs graphs on ONNX Runtime Web. */
import type { InferenceSession } from "onnxruntime-web";
import { constantsInMemory, writeModel } from "../runtime/onnx.ts";
import { checkFeeds, type Runner } from "../runtime/runner.ts";
import type { ArrayOf, DType, NdArray } from "../tensor/array.ts";
import type { Graph, Value } from "../tensor/graph.ts";

/** One of the builds of onnxruntime-web. */
export type OrtModule = Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor" | "env">;

/** Where a browser computes. */
export type BrowserDevice = "webgpu" | "wasm";

/** Where a model runs. */
export interface Placement {
  readonly device: BrowserDevice;
  /** Threads that the WebAssembly device uses; 1 on WebGPU. */
  readonly threads: number;
}

/**
 * Detects the device of this browser: WebGPU if there is an adapter, else WebAssembly.
 *
 * @throws Error if the browser has no WebAssembly
 *
 * @example
 * ```ts
 * import { detectDevice } from "minigpt4/browser";
 *
 * if ((await detectDevice()) === "wasm") console.log("Without WebGPU, answers take longer.");
 * ```
 */
export async function detectDevice(): Promise<BrowserDevice> {
  if (typeof WebAssembly !== "object") {
    throw new Error("WebAssembly is not available in this browser. Enable it, or use another browser.");
  }
  const { gpu } = navigator as Navigator & { readonly gpu?: { requestAdapter(): Promise<unknown> } };
  return (await gpu?.requestAdapter().catch(() => null)) ? "webgpu" : "wasm";
}

/** Creates a runner for a graph and frees the graph's constants. */
export async function createOrtRunner<Output extends string>(
  { ort, device }: { readonly ort: OrtModule; readonly device: BrowserDevice },
  graph: Graph,
  outputs: Readonly<Record<Output, Value>>,
): Promise<Runner<Output>> {
  const weights = constantsInMemory(graph, Object.values<Value>(outputs), "model.weights");
  const model = await writeModel(graph, outputs, weights);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: device === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    externalData: weights.data.length > 0 ? [{ path: weights.location, data: weights.data }] : [],
  });
  // The session has its own copy of the weights.
  graph.initializers.clear();
  return new OrtRunner<Output>(ort, session, graph.inputs);
}

/** onnxruntime-web allows one run at a time across all sessions: each run waits for this one. */
let lastRun: Promise<unknown> = Promise.resolve();

class OrtRunner<Output extends string> implements Runner<Output> {
  readonly #ort: OrtModule;
  readonly #session: InferenceSession;
  readonly #inputs: readonly Value[];

  constructor(ort: OrtModule, session: InferenceSession, inputs: readonly Value[]) {
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
