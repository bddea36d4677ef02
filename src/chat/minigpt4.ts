/** A loaded model: describes images, and talks about them. */
import { basename, resolve } from "node:path";
import type { Engine, ImageInput } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/load-engine.ts";
import { ProcessEngine } from "../engine/process-engine.ts";
import { RequestError } from "../errors.ts";
import type { PullOptions } from "../hub/pull.ts";
import { type AnswerOptions, Conversation, type ConversationJson } from "./conversation.ts";
import { modelPath } from "./models.ts";

export interface LoadOptions extends EngineOptions {
  /** How missing files are downloaded. */
  readonly pull?: PullOptions;
}

export interface ChatOptions {
  /** System prompt, in place of the template's own. */
  readonly system?: string;
  /** A conversation to continue: what `JSON.stringify(chat)` wrote, parsed. It brings its own system prompt. */
  readonly from?: ConversationJson;
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
  async describe(
    input: ImageInput | readonly ImageInput[],
    { signal, ...options }: AnswerOptions = {},
  ): Promise<string | string[]> {
    if (!isList(input)) return this.describeOne(input, options, signal);
    // The first failure cancels the other images.
    const failing = new AbortController();
    const either = signal ? AbortSignal.any([signal, failing.signal]) : failing.signal;
    return Promise.all(
      input.map(async (image, i) => {
        try {
          return await this.describeOne(image, options, either);
        } catch (error) {
          const named = typeof image === "string" ? error : nameImage(error, `Image ${i + 1} of ${input.length}`);
          failing.abort(named);
          throw named;
        }
      }),
    );
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

  private async describeOne(image: ImageInput, options: AnswerOptions, signal?: AbortSignal): Promise<string> {
    let text = "";
    for await (const event of this.engine.generate({ ...options, turns: "describe", images: [image] }, signal)) {
      if (event.kind === "text") text += event.text;
    }
    return text.trim();
  }
}

function isList(input: ImageInput | readonly ImageInput[]): input is readonly ImageInput[] {
  return Array.isArray(input);
}

/** An image in memory has no name, so its position says which one is meant. */
function nameImage(error: unknown, name: string): unknown {
  if (!(error instanceof RequestError) || error.code !== "invalid_image") return error;
  return new RequestError(error.code, `${name}: ${error.message}`, { cause: error });
}
