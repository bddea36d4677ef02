/** What answers in the page's name: a server, or a model in the browser. The page knows only this. */
import type { GenerationOptions } from "../../src/engine/engine.ts";
import type { FinishReason } from "../../src/generation/generate.ts";

export type { FinishReason, GenerationOptions };

/** What is known of the model. */
export interface ModelInfo {
  readonly name: string;
  /** Positions of prompt and answer together, if known. */
  readonly contextLength?: number;
  readonly tokensPerImage?: number;
  /** What the model runs on, where that is this browser. */
  readonly runsOn?: string;
}

/** How much of a model that runs in this browser has been loaded, in bytes; then it is started. */
export interface LoadProgress {
  readonly received: number;
  readonly total: number;
}

/** One message as the model is shown it. */
export interface Said {
  readonly role: "user" | "assistant";
  readonly text: string;
  /** Encoded images, which come before the text. */
  readonly images: readonly Blob[];
}

export interface AnswerRequest {
  /** What was said so far, oldest first; the last is the question. */
  readonly messages: readonly Said[];
  /** What the model is told before the conversation. */
  readonly system?: string;
  readonly decoding: GenerationOptions;
}

/** An answer as it comes: texts, then one end. */
export type GenerationEvent =
  | { readonly kind: "text"; readonly text: string }
  /** `tokens`: how many the answer has, if known. */
  | { readonly kind: "end"; readonly reason: FinishReason; readonly tokens?: number };

export interface Backend {
  /**
   * Loads the model first where it runs in this browser.
   * @throws BackendError
   */
  info(signal?: AbortSignal, onProgress?: (progress: LoadProgress) => void): Promise<ModelInfo>;
  /**
   * Answers. Whoever aborts the signal stops the answer; the iteration then throws the signal's reason.
   * @throws BackendError
   */
  answer(request: AnswerRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
}

/** A question that only shows one image asks for its description, in the words that the model was trained with. */
export function asksForDescription({ messages }: AnswerRequest): boolean {
  const [first] = messages;
  return messages.length === 1 && first?.text === "" && first.images.length === 1;
}

/** Why there is no answer, or only a part of one. */
export type ProblemKind =
  /** Nobody answers at the address. */
  | "away"
  /** A key is needed, or the one that was given is wrong. */
  | "key"
  /** Too many ask at once: later it works. */
  | "busy"
  /** The model is still being loaded: later it works. */
  | "loading"
  /** The model that lies beside the page cannot be loaded or started; the message says why. */
  | "unable"
  /** An image cannot be read. */
  | "image"
  /** Something else about the question is wrong; the message says what. */
  | "question"
  /** The answer was broken off. */
  | "broken"
  /** Anything else; the message says what. */
  | "failed";

export class BackendError extends Error {
  override name = "BackendError";
  readonly kind: ProblemKind;
  /** Seconds after which asking again makes sense, if the server said so. */
  readonly retryAfter: number | undefined;

  constructor(kind: ProblemKind, message: string, retryAfter?: number) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}
