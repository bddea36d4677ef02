/** An engine in a process of its own. */
import { resolve } from "node:path";
import type { PullOptions } from "../hub/pull.ts";
import { fetchLanguageModel } from "../models/model-folder.ts";
import type { EmbeddingInput, Engine, GenerationEvent, GenerationRequest, ImageInput, ModelInfo } from "./engine.ts";
import { type EngineOptions, loadEngine } from "./load-engine.ts";
import { type EngineMethods, engineService, PortEngine } from "./port.ts";
import { type HostedService, ServiceProcess } from "./service-process.ts";

interface EngineStart {
  readonly path: string;
  readonly name: string;
  readonly options: EngineOptions;
}

/** Runs in the engine's process. */
export async function startService({
  path,
  name,
  options,
}: EngineStart): Promise<HostedService<ModelInfo, EngineMethods>> {
  const engine = await loadEngine(path, name, options);
  return { info: engine.model, service: engineService(engine), close: () => engine.close() };
}

export class ProcessEngine implements Engine, AsyncDisposable {
  private readonly process: ServiceProcess<ModelInfo, EngineMethods>;
  private readonly engine: PortEngine;

  private constructor(process: ServiceProcess<ModelInfo, EngineMethods>) {
    this.process = process;
    this.engine = new PortEngine(process.info, process);
  }

  /**
   * Loads a model folder; missing files are downloaded first, by the calling process.
   * @param name the model's name
   * @throws Error naming what is missing or does not match
   */
  static async load(
    path: string,
    name: string,
    { pull, ...options }: EngineOptions & { readonly pull?: PullOptions } = {},
  ): Promise<ProcessEngine> {
    await fetchLanguageModel(path, pull);
    const start: EngineStart = { path: resolve(path), name, options };
    return new ProcessEngine(await ServiceProcess.start({ module: import.meta.url, options: start }));
  }

  get model(): ModelInfo {
    return this.engine.model;
  }

  get residentBytes(): number {
    return this.process.residentBytes;
  }

  generate(request: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    return this.engine.generate({ ...request, images: request.images.map(toAbsolute) }, signal);
  }

  embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    return this.engine.embed(
      inputs.map((input) => ("text" in input ? input : { image: toAbsolute(input.image) })),
      signal,
    );
  }

  close(): Promise<void> {
    return this.process.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The engine's process may have another working directory. */
function toAbsolute(image: ImageInput): ImageInput {
  return typeof image === "string" ? resolve(image) : image;
}
