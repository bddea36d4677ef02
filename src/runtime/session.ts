/** Runs graphs with ONNX Runtime: a graph becomes a model, arrays go in and come out. */
import { realpath, writeFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { ArrayOf, DType, NdArray } from "../tensor/array.ts";
import type { FileRange, Graph, Value } from "../tensor/graph.ts";
import { canMultiplyTiles } from "../tensor/quant/tiled-int8.ts";
import { type Device, executionProviders } from "./environment.ts";
import { type ConstantsFile, createModelFiles, rangeBelow } from "./model-files.ts";
import { type ConditionalOutputs, externalBytes, isMostlyStored, writeModel } from "./onnx.ts";
import { checkFeeds, type Runner } from "./runner.ts";

export interface SessionOptions {
  /** Device to compute on. @default "auto" */
  device?: Device;
  /** Threads of one operator. @default all cores */
  threads?: number;
  /** Each session writes a profile by operator into a file whose path begins with this. */
  profile?: string;
  /**
   * Whether the memory of a run is planned, from the second run with inputs of the same shapes on. It saves time where nodes are small;
   * the memory of the plan comes on top of what the first run took. @default true
   */
  plansMemory?: boolean;
  /**
   * A folder: constants that lie in files in it or below, byte for byte, are mapped from there instead of being copied. The model is
   * written next to them while it is loaded.
   */
  weightsFolder?: string;
}

/**
 * Where a session keeps its model between runs:
 * - `memory`: loaded once, with its matrices packed for the processor
 * - `mapped`: its constants stay in the files of `weightsFolder` that hold them; others are kept in memory. The model is loaded for each
 *   run, which takes milliseconds, and needs hardly any memory between runs. Matrices are packed in each run, which pays off with many rows
 * - a place on disk: model and constants are written there, and loaded for each run. Models that share constants share their file
 */
type Storage = "memory" | "mapped" | { readonly model: string; readonly constants: ConstantsFile };

export interface CreateOptions extends SessionOptions {
  /** @default "memory" */
  readonly storage?: Storage;
  /** More outputs of the session, which are computed only in some runs. */
  readonly conditional?: ConditionalOutputs;
}

type Arrays = Readonly<Record<string, NdArray>>;

/** A graph that is ready to run. A run blocks the calling thread until it has finished. */
export class Session<Output extends string = string> implements Runner<Output> {
  private readonly inputs: readonly Value[];
  private readonly load: () => Promise<InferenceSession>;
  /** Kept between runs; without it, each run loads the model. */
  private readonly resident: InferenceSession | undefined;

  private constructor(inputs: readonly Value[], load: () => Promise<InferenceSession>, resident?: InferenceSession) {
    this.inputs = inputs;
    this.load = load;
    this.resident = resident;
  }

  /** Writes the model that computes `outputs`, and loads it or makes it ready to be loaded. */
  static async create<Output extends string>(
    graph: Graph,
    outputs: Readonly<Record<Output, Value>>,
    { storage = "memory", conditional, ...options }: CreateOptions = {},
  ): Promise<Session<Output>> {
    if (storage === "mapped") {
      return new Session<Output>(graph.inputs, await mappedLoader(graph, outputs, conditional, options));
    }
    if (storage !== "memory") {
      const { model, constants } = storage;
      await writeFile(model, await writeModel(graph, outputs, constants, conditional));
      return new Session<Output>(graph.inputs, () => InferenceSession.create(model, runtimeOptions(options)));
    }
    const resident = await loadIntoMemory(graph, outputs, conditional, options);
    return new Session<Output>(graph.inputs, async () => resident, resident);
  }

  /**
   * Computes all outputs.
   *
   * @param feeds one array for each input of the graph
   * @param into arrays that outputs are written to; other outputs get new arrays
   * @throws Error if an input is missing, or its type or shape differs from the graph's
   */
  async run(feeds: Arrays, into: Partial<Record<Output, NdArray>> = {}): Promise<Record<Output, NdArray>> {
    checkFeeds(this.inputs, feeds);
    if (this.resident) return this.runWith(this.resident, feeds, into);
    const loaded = await this.load();
    try {
      return await this.runWith(loaded, feeds, into);
    } finally {
      await loaded.release();
    }
  }

  private async runWith(
    runtime: InferenceSession,
    feeds: Arrays,
    into: Partial<Record<Output, NdArray>>,
  ): Promise<Record<Output, NdArray>> {
    const used = new Set(runtime.inputNames);
    const tensors = Object.fromEntries(
      this.inputs.filter(({ name }) => used.has(name)).map(({ name }) => [name, toTensor(feeds[name] as NdArray)]),
    );
    const fetches = Object.fromEntries(
      runtime.outputNames.map((name) => {
        const target = into[name as Output];
        return [name, target ? toTensor(target) : null];
      }),
    );
    const results = await runtime.run(tensors, fetches);
    const arrays = Object.entries(results).map(([name, tensor]) => [name, into[name as Output] ?? fromTensor(tensor)]);
    return Object.fromEntries(arrays) as Record<Output, NdArray>;
  }

  /** Frees the memory of the runtime. Files of a streamed model belong to the caller. */
  async close(): Promise<void> {
    await this.resident?.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
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

/** Whether int8 matrices can be multiplied as they lie in mapped files: on a CPU whose sums of products do not overflow. */
export function supportsMappedInt8(device: Device = "auto"): boolean {
  return executionProviders(device)[0] === "cpu" && canMultiplyTiles();
}

async function loadIntoMemory(
  graph: Graph,
  outputs: Readonly<Record<string, Value>>,
  conditional: ConditionalOutputs | undefined,
  options: SessionOptions,
): Promise<InferenceSession> {
  const values = Object.values({ ...outputs, ...conditional?.outputs });
  if (externalBytes(graph, values) === 0) {
    return InferenceSession.create(await writeModel(graph, outputs, undefined, conditional), runtimeOptions(options));
  }
  const folder = isMostlyStored(graph, values) ? options.weightsFolder : undefined;
  const { model, constants, remove } = await createModelFiles(folder);
  try {
    await writeModel(graph, outputs, constants, conditional)
      .then((bytes) => writeFile(model, bytes))
      .finally(() => constants.close());
    const loaded = await InferenceSession.create(model, runtimeOptions(options));
    // A mapped file cannot be removed on Windows while it is in use; elsewhere its name can go immediately.
    if (process.platform !== "win32") await remove();
    else removeWhenReleased(loaded, remove);
    return loaded;
  } catch (error) {
    await remove();
    throw error;
  }
}

function removeWhenReleased(loaded: InferenceSession, remove: () => Promise<void>): void {
  const release = loaded.release.bind(loaded);
  loaded.release = async () => {
    await release();
    await remove();
  };
}

/** Keeps the model without its mapped constants, and loads it without packing matrices in advance. */
async function mappedLoader(
  graph: Graph,
  outputs: Readonly<Record<string, Value>>,
  conditional: ConditionalOutputs | undefined,
  options: SessionOptions,
): Promise<() => Promise<InferenceSession>> {
  if (options.weightsFolder === undefined) throw new Error("A mapped session needs a weightsFolder");
  const folder = await realpath(options.weightsFolder);
  const place = async (_name: string, _load: unknown, stored?: FileRange) => stored && rangeBelow(folder, stored);
  const model = await writeModel(graph, outputs, { place }, conditional);
  const session = { disable_prepacking: "1", model_external_initializers_file_folder_path: folder };
  return () => {
    // A memory plan is of use from the second run on.
    const shared = runtimeOptions({ ...options, plansMemory: false });
    return InferenceSession.create(model, {
      ...shared,
      // More optimization would take longer than it saves.
      graphOptimizationLevel: "basic",
      // Memory that is freed immediately can be used by the next model; the runtime's arena would end with each session.
      enableCpuMemArena: false,
      extra: { ...shared.extra, session },
    });
  };
}

/** Profiled sessions; the runtime itself distinguishes their files only by the second. */
let profiles = 0;

function runtimeOptions({ device, plansMemory, threads, profile }: SessionOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: executionProviders(device ?? "auto"),
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    enableMemPattern: plansMemory ?? true,
    // A product of one row, as attention reads a cache, has a kernel that streams through the matrix, but only without a factor.
    extra: { optimization: { disable_specified_optimizers: "MatMulScaleFusion" } },
    ...(threads ? { intraOpNumThreads: threads } : {}),
    ...(profile ? { enableProfiling: true, profileFilePrefix: `${profile}-${profiles++}` } : {}),
  };
}

function toTensor({ dtype, data, shape }: NdArray): Tensor {
  if (dtype === "bfloat16") throw new Error("bfloat16 arrays cannot be fed to a session; convert them to float32");
  return new Tensor(dtype, data as Float32Array, shape);
}

function fromTensor(tensor: Tensor): NdArray {
  const { type, dims, data } = tensor;
  return { dtype: type as DType, shape: [...dims], data: data as ArrayOf[DType] };
}
