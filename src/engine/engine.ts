/** What answers questions: the contract between whoever asks (a conversation, the server, a page) and a model, wherever it runs. */

import type { FinishReason } from "../generation/generate.ts";
import type { SamplingOptions } from "../generation/sampling.ts";
import type { Turn } from "../tokenizers/prompts.ts";

/** An image: a path, or the bytes of an encoded one. */
export type ImageInput = string | Uint8Array;

/** How an answer is searched for. */
export interface GenerationOptions extends SamplingOptions {
  /** Default 300, as in the original demo. */
  readonly maxNewTokens?: number;
  /** Above 1, the best of so many answers is searched for; sampling is off then, and the answer comes in one piece. */
  readonly numBeams?: number;
  readonly lengthPenalty?: number;
  /** The same seed gives the same answer. */
  readonly seed?: number;
}

export interface GenerationRequest extends GenerationOptions {
  /** What was said so far and is asked now; or "describe", the prompt with which the model was trained to describe one image. */
  readonly turns: readonly Turn[] | "describe";
  /** What the model is told before the conversation, in place of the template's own words. */
  readonly system?: string;
  /** The images of all turns, in their order. */
  readonly images: readonly ImageInput[];
  /** Further texts at which an answer ends; they are not part of it. */
  readonly stop?: readonly string[];
  /** How many answers are drawn (default 1), with the seeds seed, seed + 1, and so on. */
  readonly choices?: number;
  /** Of a text that is longer than the context the oldest part is cut off, as in the original demo (default), or it is refused. */
  readonly overflow?: "cut" | "refuse";
}

/** An answer as it comes: it begins once, then each choice has texts and an end. */
export type GenerationEvent =
  | {
      readonly kind: "begin";
      /** Positions of the prompt, those of images included. */
      readonly promptTokens: number;
      /** How many of them were known from an earlier question and not read anew. */
      readonly cachedTokens: number;
    }
  | { readonly kind: "text"; readonly choice: number; readonly text: string }
  | { readonly kind: "end"; readonly choice: number; readonly reason: FinishReason; readonly tokens: number };

/** What an embedding is made of. */
export type EmbeddingInput = { readonly text: string } | { readonly image: ImageInput };

/** What is known of a model without asking it. */
export interface ModelInfo {
  readonly name: string;
  /** Positions of prompt and answer together. */
  readonly contextLength: number;
  readonly tokensPerImage: number;
  /** Numbers in an embedding; undefined where the model has no contrastive head. */
  readonly embeddingSize?: number;
}

export interface Engine {
  readonly model: ModelInfo;
  /** Memory of the process that the engine has to itself, in bytes, as it last said; undefined if it has none. */
  readonly residentBytes?: number;
  /**
   * Answers. Several questions can be asked at once and share the engine. Whoever stops listening, or aborts the signal,
   * stops the answer.
   *
   * @throws QuestionError if something is wrong with the question; EngineLostError if the engine broke down on the way
   */
  generate(question: GenerationRequest, signal?: AbortSignal): AsyncIterable<GenerationEvent>;
  /**
   * Embeddings of length 1, [embeddingSize] each, in which an image lies near the texts that fit it.
   * @throws QuestionError as above, and if the model has no contrastive head
   */
  embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]>;
  /** Ends what is being answered, and frees the memory. */
  close(): Promise<void>;
}

/** Something about a question is wrong; the message says what, and asking again will not help. */
export class RequestError extends Error {
  override name = "QuestionError";
  /** An image cannot be read, the text does not fit the context, or a value is out of its bounds. */
  readonly code: "image" | "length" | "value";

  constructor(code: RequestError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The engine broke down while it answered; it starts again, and the question may be asked once more. */
export class EngineLostError extends Error {
  override name = "EngineLostError";
}
