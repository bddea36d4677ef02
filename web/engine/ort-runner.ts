/** Graphs on ONNX Runtime for the web. */
import type { InferenceSession } from "onnxruntime-web";
import { constantsInMemory, writeModel } from "../../src/runtime/onnx.ts";
import { checkFeeds, type Runner } from "../../src/runtime/runner.ts";
import type { ArrayOf, DType, NdArray } from "../../src/tensor/array.ts";
import type { Graph, Value } from "../../src/tensor/graph.ts";

/** The library, in one of its builds. */
export type Ort = Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor">;

/** The library takes one run at a time, of all sessions together. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Takes the graph over: its constants are gone from it afterwards.
 * @param providers execution providers, best first
 */
export async function createOrtRunner<Output extends string>(
  ort: Ort,
  providers: readonly string[],
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
  // The session has its own copy; without this, the graph's inputs would keep the weights in memory.
  graph.initializers.clear();
  return new OrtRunner<Output>(ort, session, graph.inputs);
}

class OrtRunner<Output extends string> implements Runner<Output> {
  private readonly ort: Ort;
  private readonly session: InferenceSession;
  private readonly inputs: readonly Value[];

  constructor(ort: Ort, session: InferenceSession, inputs: readonly Value[]) {
    this.ort = ort;
    this.session = session;
    this.inputs = inputs;
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    checkFeeds(this.inputs, feeds);
    const used = this.session.inputNames.map((name) => {
      const { dtype, data, shape } = feeds[name] as NdArray;
      return [name, new this.ort.Tensor(dtype as "float32", data as Float32Array, shape)] as const;
    });
    const running = last.then(() => this.session.run(Object.fromEntries(used)));
    last = running.catch(() => {});
    const results = await running;
    const arrays = Object.entries(results).map(([name, { type, dims, data }]) => [
      name,
      { dtype: type as DType, shape: [...dims], data: data as ArrayOf[DType] },
    ]);
    return Object.fromEntries(arrays) as Record<Output, NdArray>;
  }

  close(): Promise<void> {
    return this.session.release();
  }
}
