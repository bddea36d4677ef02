/** An engine on the calling thread, which is blocked while a token is computed. */
import type { PullOptions } from "../../checkpoints/pull.ts";
import { PictureError } from "../../images/picture.ts";
import { tokensPerImage } from "../../models/minigpt4.ts";
import { type DescribePrompt, openModelFolder } from "../../models/model-folder.ts";
import { Graph } from "../../tensor/graph.ts";
import type { SessionOptions } from "../../tensor/session.ts";
import { type PromptTemplate, parsePrompt } from "../../text/prompts.ts";
import { Context } from "../context.ts";
import { answer, type Parts } from "../conversation.ts";
import { ImageReader } from "../image-reader.ts";
import { LanguageModel, type LanguageModelOptions } from "../language-model.ts";
import { type AnswerEvent, type Engine, type ModelCard, type Question, QuestionError } from "./engine.ts";

export interface EngineOptions extends SessionOptions, Pick<LanguageModelOptions, "precision"> {
  /** How missing files are fetched. */
  readonly pull?: PullOptions;
}

export class LocalEngine implements Engine {
  readonly model: ModelCard;
  private readonly parts: Parts;
  private readonly template: PromptTemplate;
  private readonly describe: DescribePrompt;

  private constructor(model: ModelCard, parts: Parts, template: PromptTemplate, describe: DescribePrompt) {
    this.model = model;
    this.parts = parts;
    this.template = template;
    this.describe = describe;
  }

  /** Loads a model folder. @throws Error naming what is missing or does not fit */
  static async load(
    path: string,
    name: string,
    { pull = {}, precision, ...session }: EngineOptions = {},
  ): Promise<LocalEngine> {
    const folder = await openModelFolder(path, pull);
    try {
      const { checkpoint, config, tokenizer } = folder.llm;
      const graph = new Graph();
      const images = await ImageReader.create(graph, folder.imageWeights(graph), folder.config, session);
      const llm = await LanguageModel.create(checkpoint, config, { ...session, ...(precision && { precision }) });
      const model: ModelCard = {
        name,
        contextLength: config.maxPositionEmbeddings,
        tokensPerImage: tokensPerImage(folder.config),
      };
      return new LocalEngine(model, { llm, tokenizer, images }, folder.template, folder.describe);
    } finally {
      await folder.close();
    }
  }

  async *answer(question: Question, signal?: AbortSignal): AsyncGenerator<AnswerEvent, void> {
    const { turns, system, pictures, stop = [], choices = 1, seed = 0, ...options } = question;
    const describes = turns === "describe";
    const prompt = describes
      ? parsePrompt(this.describe.prompt + this.describe.beginsWith)
      : this.template.render(turns, system === undefined ? {} : { system });
    const images = await Promise.all(pictures.map((picture) => this.parts.images.read(picture))).catch((cause) => {
      if (cause instanceof PictureError) throw new QuestionError("picture", cause.message, { cause });
      throw cause;
    });
    const ends = [...(describes ? this.describe.stop : this.template.stop), ...stop];
    for (let choice = 0; choice < choices; choice++) {
      const how = { ...options, seed: seed + choice, signal };
      const pieces = answer(this.parts, prompt, images, ends, new Context(this.parts.llm), how);
      if (choice === 0) yield { kind: "begin", promptTokens: 0, cachedTokens: 0 };
      if (describes) yield { kind: "text", choice, text: this.describe.beginsWith };
      for (;;) {
        const { done, value } = await pieces.next();
        if (done) {
          yield { kind: "end", choice, ...value };
          break;
        }
        yield { kind: "text", choice, text: value };
      }
    }
  }

  async embed(): Promise<Float32Array[]> {
    throw new QuestionError("value", `The model ${this.model.name} has no contrastive head, so it has no embeddings`);
  }

  async release(): Promise<void> {
    await this.parts.images.release();
    await this.parts.llm.release();
  }
}
