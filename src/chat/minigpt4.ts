/** A MiniGPT-4 that is ready to use: describes images, and talks about them. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pulledFolder, releasedModels } from "../convert/released.ts";
import type { Engine, ImageInput } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/load-engine.ts";
import { ProcessEngine } from "../engine/process-engine.ts";
import { cacheFolder } from "../files/cache-folder.ts";
import type { PullOptions } from "../hub/pull.ts";
import { type AnswerOptions, Conversation } from "./conversation.ts";

export interface LoadOptions extends EngineOptions {
  /** How missing files are fetched. */
  readonly pull?: PullOptions;
}

/** The model itself runs in a process of its own: whoever waits for it can do other things. */
export class MiniGPT4 {
  /** For servers and the like: several questions at once, with events instead of text. */
  readonly engine: Engine;

  private constructor(engine: Engine) {
    this.engine = engine;
  }

  /**
   * Loads a model by its name (`"nano"`, which comes with the package; `"minigpt4-7b"`, once it was pulled) or from a model
   * folder.
   * @throws Error naming what is missing or does not fit
   */
  static async load(nameOrFolder: string, options: LoadOptions = {}): Promise<MiniGPT4> {
    const path = modelPath(nameOrFolder, options.pull?.cacheFolder);
    return new MiniGPT4(await ProcessEngine.load(path, basename(resolve(path)), options));
  }

  /** What an image shows, in the form that the model was trained to describe with. */
  async describe(image: ImageInput, { signal, ...options }: AnswerOptions = {}): Promise<string> {
    let text = "";
    for await (const event of this.engine.generate({ ...options, turns: "describe", images: [image] }, signal)) {
      if (event.kind === "text") text += event.text;
    }
    return text.trim();
  }

  /** A new conversation. */
  chat({ system }: { readonly system?: string } = {}): Conversation {
    return new Conversation(this.engine, system);
  }

  /** Ends what is being answered and frees the memory; the model cannot be used afterwards. */
  close(): Promise<void> {
    return this.engine.close();
  }
}

/**
 * The folder of a model that is given by name or path. Models that come with the package lie in its folder `models`, two
 * levels above this file; released ones that were pulled lie in the cache.
 * @throws Error saying what the name could be, or how to fetch the model
 */
export function modelPath(nameOrFolder: string, cache = cacheFolder()): string {
  const shipped = join(import.meta.dirname, "..", "..", "models", nameOrFolder);
  if (/^[\w.-]+$/.test(nameOrFolder) && existsSync(join(shipped, "config.json"))) return shipped;
  if (existsSync(nameOrFolder)) return nameOrFolder;
  const pulled = pulledFolder(nameOrFolder, cache);
  if (pulled) return pulled;
  throw new Error(
    `There is no model "${nameOrFolder}": it is neither a folder nor the name of a model that comes with this package ` +
      `(nano) or can be pulled (${[...releasedModels.keys()].join(", ")})`,
  );
}
