/** A loaded model: describes images, and talks about them. */
import { basename, resolve } from "node:path";
import type { Engine, ImageInput } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/load-engine.ts";
import { ProcessEngine } from "../engine/process-engine.ts";
import type { PullOptions } from "../hub/pull.ts";
import { type AnswerOptions, type ChatOptions, Conversation } from "./conversation.ts";
import { describeImage, describeImages } from "./describe.ts";
import { modelPath } from "./models.ts";

export interface LoadOptions extends EngineOptions {
  /** How missing files are downloaded. */
  readonly pull?: PullOptions;
}

/**
 * A MiniGPT-4 in a process of its own, so that the calling process is not blocked while it computes.
 *
 * @example
 * ```ts
 * import { MiniGPT4 } from "minigpt4";
 *
 * await using model = await MiniGPT4.load("nano");
 * console.log(await model.describe("cat.jpg"));
 * ```
 */
export class MiniGPT4 implements AsyncDisposable {
  /** For servers: requests and events instead of conversations. */
  readonly engine: Engine;

  private constructor(engine: Engine) {
    this.engine = engine;
  }

  /**
   * Loads a model by its name (`"nano"`, which comes with the package, or one that was pulled; see `listModels`) or from a
   * model folder.
   *
   * @throws MiniGPT4Error (`model_not_found`) if there is no such model; Error naming the file that is missing or damaged
   *
   * @example
   * ```ts
   * import { MiniGPT4 } from "minigpt4";
   *
   * await using model = await MiniGPT4.load("nano", { threads: 4 });
   * console.log(model.engine.model.contextLength);
   * ```
   */
  static async load(nameOrFolder: string, options: LoadOptions = {}): Promise<MiniGPT4> {
    const path = modelPath(nameOrFolder, options.pull?.cacheFolder);
    return new MiniGPT4(await ProcessEngine.load(path, basename(resolve(path)), options));
  }

  /**
   * Describes an image, or several in one batch, with the prompt that the model was trained with.
   *
   * @returns the description; for several images one for each, in their order
   * @throws RequestError if an image cannot be read (the message names it) or an option is out of range
   *
   * @example
   * ```ts
   * import { MiniGPT4 } from "minigpt4";
   *
   * await using model = await MiniGPT4.load("nano");
   * const text = await model.describe("cat.jpg", { maxNewTokens: 60 });
   * const [cat, dog] = await model.describe(["cat.jpg", "dog.jpg"]);
   * console.log(text, cat, dog);
   * ```
   */
  async describe(image: ImageInput, options?: AnswerOptions): Promise<string>;
  async describe(images: readonly ImageInput[], options?: AnswerOptions): Promise<string[]>;
  async describe(input: ImageInput | readonly ImageInput[], options?: AnswerOptions): Promise<string | string[]> {
    return isList(input) ? describeImages(this.engine, input, options) : describeImage(this.engine, input, options);
  }

  /**
   * Starts a conversation, or continues a saved one.
   *
   * @throws RequestError if `from` is not a saved conversation
   *
   * @example
   * ```ts
   * import { MiniGPT4 } from "minigpt4";
   *
   * await using model = await MiniGPT4.load("nano");
   * const chat = model.chat({ system: "Answer in one sentence." });
   * await chat.answer("What is in the image?", { images: ["cat.jpg"] });
   * const saved = JSON.stringify(chat);
   *
   * const continued = model.chat({ from: JSON.parse(saved) });
   * console.log((await continued.answer("What colour is it?")).text);
   * ```
   */
  chat({ system, from }: ChatOptions = {}): Conversation {
    return from === undefined ? new Conversation(this.engine, system) : Conversation.fromJSON(this.engine, from);
  }

  /** Cancels running requests and frees the memory. Closing again has no effect. */
  close(): Promise<void> {
    return this.engine.close();
  }

  /** Closes the model at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isList(input: ImageInput | readonly ImageInput[]): input is readonly ImageInput[] {
  return Array.isArray(input);
}
