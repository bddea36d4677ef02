/** Runs graphs with ONNX Runtime. */
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
  /** Number of threads per operator. @default all cores */
  threads?: number;
  /** Path prefix of the file to which a session writes a profile by operator. @default no profile */
  profile?: string;
  /**
   * Whether the runtime plans its memory, from the second run with the same input shapes on. This saves time if nodes are small, and needs
   * the memory of the plan in addition to that of the first run. @default true
   */
  plansMemory?: boolean;
  /**
   * Constants that are stored with the same bytes in files of this folder, or of folders in it, are mapped instead of copied. While a
   * model is loaded, it is written to this folder.
   */
  weightsFolder?: string;
}

/**
 * How a session keeps its model between runs:
 * - `memory`: loaded once, with matrices packed for the processor
 * - `mapped`: constants stay in the files of `weightsFolder`; only others are kept in memory. The model is loaded for each run, which takes
 *   milliseconds, and needs little memory between runs. Matrices are packed in each run, which pays off with many rows
 * - files: model and constants are written to disk, and loaded for each run. Models can share the file of constants
 */
type Storage = "memory" | "mapped" | { readonly model: string; readonly constants: ConstantsFile };

export interface CreateOptions extends SessionOptions {
  /** @default "memory" */
  readonly storage?: Storage;
  /** Additional outputs that are computed only in some runs. */
  readonly conditional?: ConditionalOutputs;
}

type Arrays = Readonly<Record<string, NdArray>>;

/** A graph that is ready to run. A run blocks the calling thread until it has finished. */
export class Session<Output extends string = string> implements Runner<Output> {
  private readonly inputs: readonly Value[];
  private readonly load: () => Promise<InferenceSession>;
  /** The model in memory; without it, each run loads the model. */
  private readonly resident?: InferenceSession;

  private constructor(inputs: readonly Value[], load: () => Promise<InferenceSession>, resident?: InferenceSession) {
    this.inputs = inputs;
    this.load = load;
    this.resident = resident;
  }

  /** Writes the model that computes `outputs` and, with storage in memory, loads it. */
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
   * @param into arrays to write outputs to; other outputs are new arrays
   * @throws Error if an input is missing or has another type or shape than in the graph
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

  /** Frees the memory of the runtime. Does not delete the files of a model on disk. */
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

/** Whether stored int8 matrices can be multiplied in mapped files: on a CPU whose 8-bit products do not overflow. */
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
    // Windows cannot delete a mapped file while it is in use.
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

/** Writes a model that refers to mapped constants. Returns a function that loads it without packing matrices in advance. */
async function mappedLoader(
  graph: Graph,
  outputs: Readonly<Record<string, Value>>,
  conditional: ConditionalOutputs | undefined,
  options: SessionOptions,
): Promise<() => Promise<InferenceSession>> {
  if (options.weightsFolder === undefined) throw new Error('storage: "mapped" requires weightsFolder');
  const folder = await realpath(options.weightsFolder);
  const place = async (_name: string, _load: unknown, stored?: FileRange) => stored && rangeBelow(folder, stored);
  const model = await writeModel(graph, outputs, { place }, conditional);
  const session = { disable_prepacking: "1", model_external_initializers_file_folder_path: folder };
  return () => {
    // A memory plan is used from the second run on only.
    const shared = runtimeOptions({ ...options, plansMemory: false });
    return InferenceSession.create(model, {
      ...shared,
      // Higher levels take longer than they save in one run.
      graphOptimizationLevel: "basic",
      // Without an arena, which would end with the session, freed memory can be reused by the next model.
      enableCpuMemArena: false,
      extra: { ...shared.extra, session },
    });
  };
}

/** Number of profiled sessions, for unique file names: the runtime's own suffix has a resolution of one second. */
let profileCount = 0;

function runtimeOptions({ device, plansMemory, threads, profile }: SessionOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: executionProviders(device ?? "auto"),
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    enableMemPattern: plansMemory ?? true,
    // The fast kernel for products with one row (attention over a cache) is used only for products without a factor.
    extra: { optimization: { disable_specified_optimizers: "MatMulScaleFusion" } },
    // The native binding rejects options that are present but undefined.
    ...(threads ? { intraOpNumThreads: threads } : {}),
    ...(profile ? { enableProfiling: true, profileFilePrefix: `${profile}-${profileCount++}` } : {}),
  };
}

function toTensor({ dtype, data, shape }: NdArray): Tensor {
  if (dtype === "bfloat16")
    throw new Error("ONNX Runtime for Node does not accept bfloat16 inputs; convert them to float32");
  return new Tensor(dtype, data as Float32Array, shape);
}

function fromTensor(tensor: Tensor): NdArray {
  const { type, dims, data } = tensor;
  return { dtype: type as DType, shape: [...dims], data: data as ArrayOf[DType] };
}
