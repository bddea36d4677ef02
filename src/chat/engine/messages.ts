/** What an engine in another process, or on another thread, and whoever asks it say to each other. */
import { type AnswerEvent, type EmbeddingInput, type Question, QuestionError } from "./engine.ts";

export type ToEngine =
  | { readonly kind: "answer"; readonly id: number; readonly question: Question }
  | { readonly kind: "embed"; readonly id: number; readonly inputs: readonly EmbeddingInput[] }
  | { readonly kind: "cancel"; readonly id: number };

/** Each request has one `done` or `failed`, which is the last of it, also after it was cancelled. */
export type FromEngine =
  | { readonly kind: "event"; readonly id: number; readonly event: AnswerEvent }
  | { readonly kind: "embeddings"; readonly id: number; readonly embeddings: Float32Array[] }
  | { readonly kind: "done"; readonly id: number }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorMessage };

/** One side of a channel between the two. */
export interface Port<Out, In> {
  post(message: Out): void;
  /** Called once. */
  listen(onMessage: (message: In) => void): void;
}

/** An error as it crosses over, where its class would be lost. */
export interface ErrorMessage {
  readonly message: string;
  readonly code?: QuestionError["code"];
}

export function errorMessage(error: unknown): ErrorMessage {
  const message = error instanceof Error ? error.message : String(error);
  return error instanceof QuestionError ? { message, code: error.code } : { message };
}

export function errorFrom({ message, code }: ErrorMessage): Error {
  return code ? new QuestionError(code, message) : new Error(message);
}
