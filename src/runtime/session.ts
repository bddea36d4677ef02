/** Running a graph: the model goes to ONNX Runtime, arrays go in and come out. */

import { realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { ArrayOf, DType, NdArray } from "../tensor/array.ts";
import type { FileRange, Graph, Value } from "../tensor/graph.ts";
import { largestInt8Weight, thisCpu } from "../tensor/quant/cpu.ts";
import { type Device, executionProviders } from "./environment.ts";
import { enginePlace, placeBelow, WeightsFile } from "./model-files.ts";
import { type ConditionalOutputs, externalBytes, isMostlyStored, writeModel } from "./onnx.ts";
import { checkFeeds, type Runner } from "./runner.ts";

export interface SessionOptions {
  /** Where to compute; `"auto"` by default. */
  device?: Device;
  /** Threads of one operator; all cores by default. */
  threads?: number;
  /** Each session writes a profile by operator into a file whose path begins so. */
  profile?: string;
  /**
   * Whether the memory of a run is planned from the second run with inputs of the same shapes on; true by default. It
   * saves time where nodes are small. The plan's memory comes on top of what the first run took.
   */
  plansMemory?: boolean;
  /**
   * A folder: constants that lie in files in it or below, byte for byte, are mapped from there instead of being copied. The model is
   * beside them while it is loaded.
   */
  weightsFolder?: string;
}

type Arrays = Readonly<Record<string, NdArray>>;

/** A graph that is ready to run. A run blocks the calling thread until its outputs are there. */
export class Session<Output extends string = string> implements Runner<Output> {
  private readonly engine: InferenceSession;
  private readonly inputs: readonly Value[];
  private readonly cleanUp: () => Promise<void>;

  private constructor(engine: InferenceSession, inputs: readonly Value[], cleanUp: () => Promise<void>) {
    this.engine = engine;
    this.inputs = inputs;
    this.cleanUp = cleanUp;
  }

  /**
   * Writes the graph that computes `outputs`, loads it, and frees what was only needed for loading.
   * @param options `conditional`: more outputs of the session, which are computed only in some runs
   */
  static async create<Output extends string>(
    graph: Graph,
    outputs: Readonly<Record<Output, Value>>,
    { conditional, ...options }: SessionOptions & { readonly conditional?: ConditionalOutputs } = {},
  ): Promise<Session<Output>> {
    const values = Object.values<Value>({ ...outputs, ...conditional?.outputs });
    if (externalBytes(graph, values) === 0) {
      const model = await writeModel(graph, outputs, undefined, conditional);
      const engine = await InferenceSession.create(model, engineOptions(options));
      return new Session<Output>(engine, graph.inputs, async () => {});
    }
    const isStored = isMostlyStored(graph, values);
    const { model, weights, remove } = await enginePlace(isStored ? options.weightsFolder : undefined);
    try {
      await writeModel(graph, outputs, weights, conditional)
        .then((bytes) => writeFile(model, bytes))
        .finally(() => weights.close());
      const session = await Session.load<Output>(model, graph.inputs, options, remove);
      // A mapped file cannot be removed on Windows while it is in use; elsewhere its name can go at once.
      if (process.platform !== "win32") await remove();
      return session;
    } catch (error) {
      await remove();
      throw error;
    }
  }

  /**
   * Loads a model that was written.
   *
   * @param inputs of its graph
   * @param cleanUp when the session is released
   */
  static async load<Output extends string>(
    path: string,
    inputs: readonly Value[],
    options: SessionOptions = {},
    cleanUp = async () => {},
  ): Promise<Session<Output>> {
    const engine = await InferenceSession.create(path, engineOptions(options));
    return new Session<Output>(engine, inputs, cleanUp);
  }

  /**
   * Loads a model from memory for a single run, and maps its constants: they are not packed in advance.
   *
   * @param folder what the places of its constants are relative to
   */
  static async mapped<Output extends string>(
    model: Uint8Array,
    folder: string,
    inputs: readonly Value[],
    options: SessionOptions = {},
  ): Promise<Session<Output>> {
    const shared = engineOptions(options);
    const session = { disable_prepacking: "1", model_external_initializers_file_folder_path: folder };
    // More would take longer than it saves.
    const own = {
      ...shared,
      graphOptimizationLevel: "basic" as const,
      // Memory that is freed at once is there for the next model; the engine's own store of memory would end with each.
      enableCpuMemArena: false,
      extra: { ...shared.extra, session },
    };
    const engine = await InferenceSession.create(model, own);
    return new Session<Output>(engine, inputs, async () => {});
  }

  /**
   * Computes all outputs.
   *
   * @param feeds one array for each input of the graph
   * @param into arrays that outputs are written to; other outputs get new arrays
   * @throws Error if an input is missing or its type or shape is not the graph's
   */
  async run(feeds: Arrays, into: Partial<Record<Output, NdArray>> = {}): Promise<Record<Output, NdArray>> {
    checkFeeds(this.inputs, feeds);
    const used = new Set(this.engine.inputNames);
    const tensors = Object.fromEntries(
      this.inputs.filter(({ name }) => used.has(name)).map(({ name }) => [name, toTensor(feeds[name] as NdArray)]),
    );
    const fetches = Object.fromEntries(
      this.engine.outputNames.map((name) => {
        const target = into[name as Output];
        return [name, target ? toTensor(target) : null];
      }),
    );
    const results = await this.engine.run(tensors, fetches);
    const arrays = Object.entries(results).map(([name, tensor]) => [name, into[name as Output] ?? fromTensor(tensor)]);
    return Object.fromEntries(arrays) as Record<Output, NdArray>;
  }

  /** Frees the engine's memory. */
  async close(): Promise<void> {
    await this.engine.release();
    await this.cleanUp();
  }
}

/** Runs a graph once. */
export async function evaluate<Output extends string>(
  graph: Graph,
  outputs: Readonly<Record<Output, Value>>,
  feeds: Arrays = {},
  options: SessionOptions = {},
): Promise<Record<Output, NdArray>> {
  const session = await Session.create(graph, outputs, options);
  try {
    return await session.run(feeds);
  } finally {
    await session.close();
  }
}

/** Sessions that were profiled; the engine itself tells their files only by the second. */
let profiles = 0;

function engineOptions(options: SessionOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: executionProviders(options.device ?? "auto"),
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    enableMemPattern: options.plansMemory ?? true,
    // A product of one row, as attention reads a cache, has a kernel that streams through the matrix, but only without a factor.
    extra: { optimization: { disable_specified_optimizers: "MatMulScaleFusion" } },
    ...(options.threads ? { intraOpNumThreads: options.threads } : {}),
    ...(options.profile ? { enableProfiling: true, profileFilePrefix: `${options.profile}-${profiles++}` } : {}),
  };
}

function toTensor({ dtype, data, shape }: NdArray): Tensor {
  if (dtype === "bfloat16") throw new Error("bfloat16 arrays cannot enter a session; convert them to float32");
  return new Tensor(dtype, data as Float32Array, shape);
}

function fromTensor(tensor: Tensor): NdArray {
  const { type, dims, data } = tensor;
  return { dtype: type as DType, shape: [...dims], data: data as ArrayOf[DType] };
}

// * A model whose large constants are read where they lie in files. It is loaded anew for each run, which takes milliseconds, and has hardly
// any memory in between: a network in pieces is run piece by piece, and what is seldom run need not stay. The price: nothing is packed in
// advance, each run packs its matrices anew, which many rows at once are worth.

export class MappedModel<Output extends string> implements Runner<Output> {
  private readonly folder: string;
  private readonly graph: Graph;
  private readonly model: Uint8Array;
  private readonly options: SessionOptions;

  private constructor(folder: string, graph: Graph, model: Uint8Array, options: SessionOptions) {
    this.folder = folder;
    this.graph = graph;
    this.model = model;
    this.options = options;
  }

  /** Whether bytes can be multiplied as they lie: only on a processor, and not where their sums would overflow. */
  static isPossible(device: Device = "auto"): boolean {
    return executionProviders(device)[0] === "cpu" && largestInt8Weight(thisCpu()) === 127;
  }

  /**
   * The model that computes `outputs`.
   * @param folder constants that lie in files in it or below are mapped; all others are kept in memory
   */
  static async create<Output extends string>(
    graph: Graph,
    outputs: Readonly<Record<Output, Value>>,
    folder: string,
    options: SessionOptions = {},
  ): Promise<MappedModel<Output>> {
    const root = await realpath(folder);
    const place = async (_name: string, _load: unknown, stored?: FileRange) => stored && placeBelow(root, stored);
    const model = await writeModel(graph, outputs, { place });
    // A plan of memory is of use from the second run on.
    return new MappedModel<Output>(root, graph, model, { ...options, plansMemory: false });
  }

  async run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>> {
    const session = await Session.mapped<Output>(this.model, this.folder, this.graph.inputs, this.options);
    try {
      return await session.run(feeds);
    } finally {
      await session.close();
    }
  }

  async close(): Promise<void> {}
}

// Models on disk that share a file of constants, each loaded as often as it is needed: a network in pieces.

/** `Outputs` names each model and its outputs: `{ forward: "y" | "z" }`. */
export class StoredModels<Outputs extends Readonly<Record<string, string>>> {
  private readonly folder: string;
  private readonly models: { readonly [Name in keyof Outputs]: { readonly graph: Graph } };

  private constructor(folder: string, models: StoredModels<Outputs>["models"]) {
    this.folder = folder;
    this.models = models;
  }

  /** Writes models into a folder. Constants of one name are taken to be the same in all of them. */
  static async write<Outputs extends Readonly<Record<string, string>>>(
    folder: string,
    models: {
      readonly [Name in keyof Outputs]: {
        readonly graph: Graph;
        readonly outputs: Readonly<Record<Outputs[Name], Value>>;
      };
    },
  ): Promise<StoredModels<Outputs>> {
    const weights = await WeightsFile.create(folder, "model.weights");
    try {
      for (const name of Object.keys(models)) {
        const { graph, outputs } = models[name as keyof Outputs];
        await writeFile(join(folder, `${name}.onnx`), await writeModel(graph, outputs, weights));
      }
    } finally {
      await weights.close();
    }
    return new StoredModels(folder, models);
  }

  /** Runs `use` with a session of the model, which is released afterwards. */
  async with<Name extends keyof Outputs & string, Result>(
    name: Name,
    options: SessionOptions,
    use: (session: Session<Outputs[Name]>) => Promise<Result>,
  ): Promise<Result> {
    const { graph } = this.models[name];
    const session = await Session.load<Outputs[Name]>(join(this.folder, `${name}.onnx`), graph.inputs, options);
    try {
      return await use(session);
    } finally {
      await session.close();
    }
  }
}
