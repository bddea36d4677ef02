/** An engine on the calling thread, which is blocked while a token is computed. */

import { modelClosed, RequestError } from "../errors.ts";
import { toPositions, truncateToContext } from "../generation/generate.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import type { DescribePrompt } from "../models/model-folder.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { type PromptTemplate, parsePrompt } from "../tokenizers/prompts.ts";
import type { ImageCache } from "./caches.ts";
import type { Embedder } from "./embedder.ts";
import type { EmbeddingInput, Engine, GenerationEvent, GenerationRequest, ModelInfo } from "./engine.ts";
import { type ScheduledRequest, Scheduler, type SchedulerOptions, yieldToEventLoop } from "./scheduler.ts";

export interface EngineParts {
  readonly model: ModelInfo;
  readonly images: ImageCache;
  readonly llm: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly template: PromptTemplate;
  readonly describe: DescribePrompt;
  /** Undefined if the model has no contrastive head. */
  readonly embedder?: Embedder;
}

const defaultMaxNewTokens = 300;

export class LocalEngine implements Engine, AsyncDisposable {
  private readonly parts: EngineParts;
  private readonly scheduler: Scheduler;
  private closing: Promise<void> | undefined;

  constructor(parts: EngineParts, options: SchedulerOptions) {
    this.parts = parts;
    this.scheduler = new Scheduler(parts.llm, parts.tokenizer, options);
  }

  get model(): ModelInfo {
    return this.parts.model;
  }

  async *generate(request: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    this.throwIfClosed();
    signal?.throwIfAborted();
    const scheduled = await this.prepare(request);
    this.throwIfClosed();
    // The beginning of a description is part of the prompt, and of the text.
    const beginning = request.turns === "describe" ? this.parts.describe.beginsWith : "";
    const started = new Set<number>();
    for await (const event of this.scheduler.generate(scheduled, signal)) {
      if (event.kind !== "begin" && beginning !== "" && !started.has(event.choice)) {
        started.add(event.choice);
        yield { kind: "text", choice: event.choice, text: beginning };
      }
      yield event;
    }
  }

  async embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]> {
    const { embedder, images } = this.parts;
    if (!embedder) {
      throw new RequestError(
        "invalid_request",
        `The model ${this.model.name} has no contrastive head, so it has no embeddings`,
      );
    }
    const embeddings: Float32Array[] = [];
    for (const input of inputs) {
      this.throwIfClosed();
      signal?.throwIfAborted();
      if ("text" in input) embeddings.push(...(await embedder.embedTexts([input.text])));
      else embeddings.push(await embedder.embedImage(await images.encode(input.image)));
      // A long list must not hold up generations.
      await yieldToEventLoop();
    }
    return embeddings;
  }

  close(): Promise<void> {
    this.closing ??= this.closeParts();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async closeParts(): Promise<void> {
    await this.scheduler.stop(modelClosed());
    await this.parts.images.close();
    await this.parts.llm.close();
    await this.parts.embedder?.close();
  }

  private throwIfClosed(): void {
    if (this.closing) throw modelClosed();
  }

  /** Renders the prompt, encodes its images, and checks lengths. */
  private async prepare(request: GenerationRequest): Promise<ScheduledRequest> {
    const { template, describe, tokenizer } = this.parts;
    const { turns, system, stop = [], choices = 1 } = request;
    if (!Number.isInteger(choices) || choices < 1) {
      throw new RequestError("invalid_request", `choices is ${choices}; expected a whole number of at least 1`);
    }
    const describes = turns === "describe";
    const prompt = describes ? parsePrompt(describe.prompt + describe.beginsWith) : template.render(turns, { system });
    const imageCount = prompt.segments.filter(({ kind }) => kind === "image").length;
    if (imageCount !== request.images.length) {
      throw new RequestError(
        "invalid_request",
        `The prompt has ${imageCount} images, but the request has ${request.images.length}`,
      );
    }
    const images = await Promise.all(request.images.map((image) => this.parts.images.encode(image)));
    return {
      ...request,
      ...this.fit(toPositions(prompt, images, tokenizer), request),
      stop: [...(describes ? describe.stop : template.stop), ...stop],
      choices,
    };
  }

  /** A sequence that leaves room for the generated text. */
  private fit(
    sequence: readonly Position[],
    { maxNewTokens = defaultMaxNewTokens, overflow = "cut" }: GenerationRequest,
  ): Pick<ScheduledRequest, "sequence" | "maxNewTokens"> {
    const { contextLength } = this.model;
    const largest = overflow === "cut" ? contextLength - 1 : Number.POSITIVE_INFINITY;
    if (!(maxNewTokens >= 1 && maxNewTokens <= largest)) {
      throw new RequestError(
        "invalid_request",
        `maxNewTokens is ${maxNewTokens}; expected a number from 1 to ${contextLength - 1}`,
      );
    }
    if (overflow === "cut") {
      return { sequence: truncateToContext(sequence, maxNewTokens, contextLength), maxNewTokens };
    }
    const room = contextLength - sequence.length;
    if (room < 1) {
      throw new RequestError(
        "context_length_exceeded",
        `The conversation has ${sequence.length} tokens, but this model's context has ${contextLength}. Shorten it.`,
      );
    }
    return { sequence, maxNewTokens: Math.min(maxNewTokens, room) };
  }
}
