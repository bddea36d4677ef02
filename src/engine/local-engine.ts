/** An engine on the calling thread, which is blocked while a token is computed. */

import { toPositions, truncateToContext } from "../generation/generate.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import type { DescribePrompt } from "../models/model-folder.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { type PromptTemplate, parsePrompt } from "../tokenizers/prompts.ts";
import type { ImageCache } from "./caches.ts";
import type { Embedder } from "./embedder.ts";
import {
  type EmbeddingInput,
  type Engine,
  type GenerationEvent,
  type GenerationRequest,
  type ModelInfo,
  RequestError,
} from "./engine.ts";
import { type ScheduledRequest, Scheduler, type SchedulerOptions, yieldToEventLoop } from "./scheduler.ts";

/** What answers are made with. */
export interface EngineParts {
  readonly model: ModelInfo;
  readonly images: ImageCache;
  readonly llm: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly template: PromptTemplate;
  readonly describe: DescribePrompt;
  /** Of a model that has a contrastive head. */
  readonly embedder?: Embedder | undefined;
}

const maxNewTokensByDefault = 300;

export class LocalEngine implements Engine {
  private readonly parts: EngineParts;
  private readonly scheduler: Scheduler;

  constructor(parts: EngineParts, options: SchedulerOptions) {
    this.parts = parts;
    this.scheduler = new Scheduler(parts.llm, parts.tokenizer, options);
  }

  get model(): ModelInfo {
    return this.parts.model;
  }

  async *generate(question: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    signal?.throwIfAborted();
    const request = await this.requestOf(question);
    // What a description begins with is read as a part of the prompt, and is a part of the answer.
    const beginning = question.turns === "describe" ? this.parts.describe.beginsWith : "";
    const begun = new Set<number>();
    for await (const event of this.scheduler.generate(request, signal)) {
      if (event.kind !== "begin" && beginning !== "" && !begun.has(event.choice)) {
        begun.add(event.choice);
        yield { kind: "text", choice: event.choice, text: beginning };
      }
      yield event;
    }
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    const { embedder, images } = this.parts;
    if (!embedder) {
      throw new RequestError("value", `The model ${this.model.name} has no contrastive head, so it has no embeddings`);
    }
    const all: Float32Array[] = [];
    for (const input of inputs) {
      signal?.throwIfAborted();
      if ("text" in input) all.push(...(await embedder.embedTexts([input.text])));
      else all.push(await embedder.embedImage(await images.encode(input.image)));
      // Many texts in a row must not hold up answers.
      await yieldToEventLoop();
    }
    return all;
  }

  async close(): Promise<void> {
    await this.scheduler.stop(new Error("The model was released"));
    await this.parts.images.close();
    await this.parts.llm.close();
    await this.parts.embedder?.close();
  }

  private async requestOf(question: GenerationRequest): Promise<ScheduledRequest> {
    const { template, describe, tokenizer } = this.parts;
    const { turns, system, stop = [], choices = 1 } = question;
    if (!Number.isInteger(choices) || choices < 1) {
      throw new RequestError("value", `choices is ${choices}; it should be a whole number from 1 on`);
    }
    const describes = turns === "describe";
    const prompt = describes
      ? parsePrompt(describe.prompt + describe.beginsWith)
      : template.render(turns, system === undefined ? {} : { system });
    const places = prompt.segments.filter(({ kind }) => kind === "image").length;
    if (places !== question.images.length) {
      throw new RequestError(
        "value",
        `The question has ${places} places for images, but ${question.images.length} were given`,
      );
    }
    const images = await Promise.all(question.images.map((image) => this.parts.images.encode(image)));
    return {
      ...question,
      ...this.fit(toPositions(prompt, images, tokenizer), question),
      stop: [...(describes ? describe.stop : template.stop), ...stop],
      choices,
    };
  }

  /** A sequence that leaves room for its answer. */
  private fit(
    sequence: readonly Position[],
    { maxNewTokens = maxNewTokensByDefault, overflow = "cut" }: GenerationRequest,
  ): Pick<ScheduledRequest, "sequence" | "maxNewTokens"> {
    const { contextLength } = this.model;
    const most = overflow === "cut" ? contextLength - 1 : Number.POSITIVE_INFINITY;
    if (!(maxNewTokens >= 1 && maxNewTokens <= most)) {
      throw new RequestError(
        "value",
        `maxNewTokens is ${maxNewTokens}; it should be between 1 and ${contextLength - 1}`,
      );
    }
    if (overflow === "cut") return { sequence: truncateToContext(sequence, maxNewTokens, contextLength), maxNewTokens };
    const room = contextLength - sequence.length;
    if (room < 1) {
      throw new RequestError(
        "length",
        `The conversation has ${sequence.length} tokens, but this model's context is ${contextLength} tokens; shorten it`,
      );
    }
    return { sequence, maxNewTokens: Math.min(maxNewTokens, room) };
  }
}
