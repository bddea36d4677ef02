/** A MiniGPT-4 that is ready to use: describes pictures, and talks about them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { PullOptions } from "../checkpoints/pull.ts";
import { type DescribePrompt, openModelFolder } from "../models/model-folder.ts";
import { Graph } from "../tensor/graph.ts";
import type { SessionOptions } from "../tensor/session.ts";
import { type PromptTemplate, parsePrompt } from "../text/prompts.ts";
import { Context } from "./context.ts";
import { type AnswerOptions, answer, Conversation, type Parts, type Picture } from "./conversation.ts";
import { ImageReader } from "./image-reader.ts";
import { LanguageModel, type LanguageModelOptions } from "./language-model.ts";

export interface LoadOptions extends SessionOptions, Pick<LanguageModelOptions, "precision"> {
  /** How missing files are fetched. */
  readonly pull?: PullOptions;
}

export class MiniGPT4 {
  private readonly parts: Parts;
  private readonly template: PromptTemplate;
  private readonly describePrompt: DescribePrompt;

  private constructor(parts: Parts, template: PromptTemplate, describePrompt: DescribePrompt) {
    this.parts = parts;
    this.template = template;
    this.describePrompt = describePrompt;
  }

  /**
   * Loads a model by its name (`"nano"`, which comes with the package) or from a model folder.
   * @throws Error naming what is missing or does not fit
   */
  static async load(nameOrFolder: string, { pull = {}, precision, ...session }: LoadOptions = {}): Promise<MiniGPT4> {
    const folder = await openModelFolder(modelPath(nameOrFolder), pull);
    try {
      const { checkpoint, config, tokenizer } = folder.llm;
      const graph = new Graph();
      const images = await ImageReader.create(graph, folder.imageWeights(graph), folder.config, session);
      const llm = await LanguageModel.create(checkpoint, config, { ...session, ...(precision && { precision }) });
      return new MiniGPT4({ llm, tokenizer, images }, folder.template, folder.describe);
    } finally {
      await folder.close();
    }
  }

  /** What a picture shows, in the form that the model was trained to describe with. */
  async describe(picture: Picture, options: AnswerOptions = {}): Promise<string> {
    const { prompt, beginsWith, stop } = this.describePrompt;
    const tokens = await this.parts.images.read(picture);
    let text = beginsWith;
    for await (const piece of answer(
      this.parts,
      parsePrompt(prompt + beginsWith),
      [tokens],
      stop,
      new Context(this.parts.llm),
      options,
    )) {
      text += piece;
    }
    return text.trim();
  }

  /** A new conversation. */
  chat({ system }: { readonly system?: string } = {}): Conversation {
    return new Conversation(this.parts, this.template, system);
  }

  /** Frees the engine's memory; the model cannot be used afterwards. */
  async release(): Promise<void> {
    await this.parts.images.release();
    await this.parts.llm.release();
  }
}

/** The folder of a model that is given by name or path. Models that come with the package lie in its folder `models`, two levels above this file. */
export function modelPath(nameOrFolder: string): string {
  const shipped = join(import.meta.dirname, "..", "..", "models", nameOrFolder);
  if (/^[\w.-]+$/.test(nameOrFolder) && existsSync(join(shipped, "config.json"))) return shipped;
  if (existsSync(nameOrFolder)) return nameOrFolder;
  throw new Error(
    `There is no model "${nameOrFolder}": it is neither a folder nor the name of a model that comes with this package (nano)`,
  );
}
