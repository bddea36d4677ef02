/** A model in a browser: describes images, talks about them, and serves requests as an engine. */
import { type AnswerOptions, type ChatOptions, Conversation } from "../chat/conversation.ts";
import { describeImage, describeImages } from "../chat/describe.ts";
import type { EmbeddingInput, Engine, GenerationEvent, GenerationRequest, ModelInfo } from "../engine/engine.ts";
import type { BrowserDevice, Placement } from "./ort-runner.ts";

/** An encoded image: a file that was selected or fetched, or its bytes. */
export type BrowserImage = Blob | Uint8Array;

/**
 * A model in this browser, loaded by `loadModel` or `connectModel`. Images of requests are bytes; a page has no paths.
 *
 * @example
 * ```ts
 * import * as ort from "onnxruntime-web/webgpu";
 * import { type BrowserModel, loadModel } from "minigpt4/browser";
 *
 * const model: BrowserModel = await loadModel("/models/nano/", { ort });
 * console.log(model.model.name, model.device, model.threads);
 * ```
 */
export class BrowserModel implements Engine, Placement, AsyncDisposable {
  /** Where the model runs. */
  readonly device: BrowserDevice;
  /** Threads that the WebAssembly device uses; 1 on WebGPU. */
  readonly threads: number;
  private readonly engine: Engine;

  /** @internal */
  constructor(engine: Engine, { device, threads }: Placement) {
    this.engine = engine;
    this.device = device;
    this.threads = threads;
  }

  /** Properties of the model. */
  get model(): ModelInfo {
    return this.engine.model;
  }

  /**
   * Describes an image, or several in one batch, with the prompt that the model was trained with.
   *
   * @returns the description; for several images one for each, in their order
   * @throws RequestError if an image cannot be decoded (the message names it) or an option is out of range
   *
   * @example
   * ```ts
   * import * as ort from "onnxruntime-web/webgpu";
   * import { loadModel } from "minigpt4/browser";
   *
   * const model = await loadModel("/models/nano/", { ort });
   * document.querySelector<HTMLInputElement>("input[type=file]")?.addEventListener("change", async ({ target }) => {
   *   const files = [...((target as HTMLInputElement).files ?? [])];
   *   console.log(await model.describe(files, { maxNewTokens: 60 }));
   * });
   * ```
   */
  async describe(image: BrowserImage, options?: AnswerOptions): Promise<string>;
  async describe(images: readonly BrowserImage[], options?: AnswerOptions): Promise<string[]>;
  async describe(input: BrowserImage | readonly BrowserImage[], options?: AnswerOptions): Promise<string | string[]> {
    if (!isList(input)) return describeImage(this.engine, await toBytes(input), options);
    return describeImages(this.engine, await Promise.all(input.map(toBytes)), options);
  }

  /**
   * Starts a conversation, or continues a saved one.
   *
   * @throws RequestError if `from` is not a saved conversation
   *
   * @example
   * ```ts
   * import * as ort from "onnxruntime-web/webgpu";
   * import { loadModel } from "minigpt4/browser";
   *
   * const model = await loadModel("/models/nano/", { ort });
   * const image = new Uint8Array(await (await fetch("/cat.jpg")).arrayBuffer());
   * for await (const text of model.chat().ask("What is the cat doing?", { images: [image] })) document.body.append(text);
   * ```
   */
  chat({ system, from }: ChatOptions = {}): Conversation {
    return from === undefined ? new Conversation(this.engine, system) : Conversation.fromJSON(this.engine, from);
  }

  /**
   * Streams a generation. To stop iterating, or to abort the signal, cancels it.
   *
   * @throws RequestError if the request is invalid
   *
   * @example
   * ```ts
   * import * as ort from "onnxruntime-web/webgpu";
   * import { loadModel } from "minigpt4/browser";
   *
   * const model = await loadModel("/models/nano/", { ort });
   * const image = new Uint8Array(await (await fetch("/cat.jpg")).arrayBuffer());
   * for await (const event of model.generate({ turns: "describe", images: [image], seed: 1, temperature: 0.8 })) {
   *   if (event.kind === "text") document.body.append(event.text);
   * }
   * ```
   */
  generate(request: GenerationRequest, signal?: AbortSignal): AsyncIterable<GenerationEvent> {
    return this.engine.generate(request, signal);
  }

  /**
   * L2-normalised embeddings, [embeddingSize] each, in which an image is close to texts that describe it.
   *
   * @throws RequestError if the model has no contrastive head, which `model.embeddingSize` tells
   */
  embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    return this.engine.embed(inputs, signal);
  }

  /** Cancels running requests and frees the memory; ends the worker, if there is one. Closing again has no effect. */
  close(): Promise<void> {
    return this.engine.close();
  }

  /** Closes the model at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isList(input: BrowserImage | readonly BrowserImage[]): input is readonly BrowserImage[] {
  return Array.isArray(input);
}

async function toBytes(image: BrowserImage): Promise<Uint8Array> {
  return image instanceof Blob ? new Uint8Array(await image.arrayBuffer()) : image;
}
