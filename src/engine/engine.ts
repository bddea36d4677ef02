/** The contract between a model, wherever it runs, and its clients: conversations, the server, the page. */

import type { FinishReason } from "../generation/generate.ts";
import type { SamplingOptions } from "../generation/sampling.ts";
import type { Turn } from "../tokenizers/prompts.ts";

/** An image: a path, or the bytes of an encoded image (JPEG, PNG, WebP, ...). */
export type ImageInput = string | Uint8Array;

/** How text is generated. */
export interface GenerationOptions extends SamplingOptions {
  /** @default 300 */
  readonly maxNewTokens?: number;
  /** Above 1, beam search with this many beams, without sampling; the text comes in one piece. @default 1 */
  readonly numBeams?: number;
  /** For beam search: above 0 favours long texts. @default 1 */
  readonly lengthPenalty?: number;
  /** The same seed gives the same text. @default 0 */
  readonly seed?: number;
}

export interface GenerationRequest extends GenerationOptions {
  /** The conversation, ending with the user's turn; or `"describe"`, the prompt with which the model was trained to describe one image. */
  readonly turns: readonly Turn[] | "describe";
  /** System prompt, in place of the template's own. */
  readonly system?: string;
  /** The images of all turns, in order. */
  readonly images: readonly ImageInput[];
  /** Further stop strings; they are not part of the text. */
  readonly stop?: readonly string[];
  /** Number of texts to generate, with the seeds `seed`, `seed + 1`, and so on. @default 1 */
  readonly choices?: number;
  /** A prompt longer than the context loses its oldest part, as in the original demo (`"cut"`), or is refused. @default "cut" */
  readonly overflow?: "cut" | "refuse";
}

/** A generation as a stream: `begin` once, then each choice has texts and an `end`. */
export type GenerationEvent =
  | {
      readonly kind: "begin";
      /** Positions of the prompt, including those of images. */
      readonly promptTokens: number;
      /** How many of them were in the prefix cache and not computed again. */
      readonly cachedTokens: number;
    }
  | { readonly kind: "text"; readonly choice: number; readonly text: string }
  | { readonly kind: "end"; readonly choice: number; readonly reason: FinishReason; readonly tokens: number };

export type EmbeddingInput = { readonly text: string } | { readonly image: ImageInput };

/** Properties of a loaded model. */
export interface ModelInfo {
  readonly name: string;
  /** Positions of prompt and generated text together. */
  readonly contextLength: number;
  readonly tokensPerImage: number;
  /** Dimensions of an embedding; undefined if the model has no contrastive head. */
  readonly embeddingSize?: number;
}

/** A loaded model that serves several requests at the same time. */
export interface Engine {
  readonly model: ModelInfo;
  /** Resident memory of the engine's own process in bytes, updated every few seconds; undefined if it has none. */
  readonly residentBytes?: number;
  /**
   * Streams a generation. Requests run in one batch. To stop iterating, or to abort the signal, cancels the request.
   *
   * @throws RequestError if the request is invalid; EngineLostError if the model process exits meanwhile
   */
  generate(request: GenerationRequest, signal?: AbortSignal): AsyncIterable<GenerationEvent>;
  /**
   * L2-normalised embeddings, [embeddingSize] each, in which an image is close to texts that describe it.
   * @throws RequestError as `generate`, and if the model has no contrastive head
   */
  embed(inputs: readonly EmbeddingInput[], signal?: AbortSignal): Promise<Float32Array[]>;
  /** Fails all running requests and frees the memory. Closing again has no effect. */
  close(): Promise<void>;
}
