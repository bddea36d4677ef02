/** What generates answers for the page: a server, or a model in this browser. The page knows only this interface. */
import type { LoadProgress } from "../../src/browser/index.ts";
import type { GenerationOptions } from "../../src/engine/engine.ts";
import type { FinishReason } from "../../src/generation/generate.ts";

export type { FinishReason, GenerationOptions, LoadProgress };

export interface ModelInfo {
  readonly name: string;
  /** Tokens of prompt and answer together, if known. */
  readonly contextLength?: number;
  readonly tokensPerImage?: number;
  /** The device, for a model that runs in this browser. */
  readonly runsOn?: string;
}

/** One message of the prompt. */
export interface PromptMessage {
  readonly role: "user" | "assistant";
  readonly text: string;
  /** Encoded images, placed before the text. */
  readonly images: readonly Blob[];
}

export interface ChatRequest {
  /** Oldest first; the last is the question. */
  readonly messages: readonly PromptMessage[];
  /** The system prompt. @default the model's own */
  readonly system?: string;
  readonly options: GenerationOptions;
}

/** Any number of texts, then one end. */
export type GenerationEvent =
  | { readonly kind: "text"; readonly text: string }
  /** `tokens`: the number of generated tokens, if known. */
  | { readonly kind: "end"; readonly reason: FinishReason; readonly tokens?: number };

export interface Backend {
  /**
   * Describes the model. A model that runs in this browser is loaded first.
   * @throws BackendError
   */
  info(signal?: AbortSignal, onProgress?: (progress: LoadProgress) => void): Promise<ModelInfo>;
  /**
   * Streams an answer. Aborting the signal stops the generation, and the iteration throws the signal's reason.
   * @throws BackendError
   */
  generate(request: ChatRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
}

/** A single image without text is described with the prompt that the model was trained on. */
export function isDescribeRequest({ messages }: ChatRequest): boolean {
  const [first] = messages;
  return messages.length === 1 && first?.text === "" && first.images.length === 1;
}

/** Address of the `model.json` exported with the page, relative to the page; undefined on a page served by a server. */
export function bundledModel(): string | undefined {
  return document.querySelector<HTMLMetaElement>('meta[name="minigpt4-model"]')?.content || undefined;
}

/** Why an answer is missing or incomplete. The page stores these with its chats. */
export type ProblemKind =
  /** The server does not respond. */
  | "away"
  /** The API key is missing or invalid. */
  | "key"
  /** Too many requests; a retry may succeed. */
  | "busy"
  /** The model is still loading; a retry may succeed. */
  | "loading"
  /** The model exported with the page cannot be loaded or started; the message says why. */
  | "unable"
  /** An image cannot be decoded. */
  | "image"
  /** The request is invalid in another way; the message says how. */
  | "question"
  /** The stream ended before the answer did. */
  | "broken"
  /** Anything else; the message says what. */
  | "failed";

export class BackendError extends Error {
  override name = "BackendError";
  readonly kind: ProblemKind;
  /** Seconds to wait before a retry, if the server sent them. */
  readonly retryAfter: number | undefined;

  constructor(kind: ProblemKind, message: string, retryAfter?: number) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}
