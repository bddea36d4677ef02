/** Errors of the library, each with a stable code for programs. */

/** What went wrong, for programs; messages are for people and may change. */
export type ErrorCode =
  /** No model has this name, and no folder this path. */
  | "model_not_found"
  /** The model was closed. */
  | "model_closed"
  /** The model process exited unexpectedly. It restarts, so the request can be retried. */
  | "engine_lost"
  /** The image is missing, damaged, too large, or not an image. */
  | "invalid_image"
  /** The conversation is longer than the model's context. */
  | "context_length_exceeded"
  /** An option or the form of the request is invalid. */
  | "invalid_request";

/**
 * Any error that a caller of the library may want to handle; `code` says which.
 *
 * @example
 * ```ts
 * import { MiniGPT4, MiniGPT4Error } from "minigpt4";
 *
 * try {
 *   await MiniGPT4.load("no-such-model");
 * } catch (error) {
 *   if (error instanceof MiniGPT4Error && error.code === "model_not_found") console.error(error.message);
 *   else throw error;
 * }
 * ```
 */
export class MiniGPT4Error extends Error {
  override name = "MiniGPT4Error";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Codes of errors that are the request's fault: retrying it does not help. */
export const requestErrorCodes = ["invalid_image", "context_length_exceeded", "invalid_request"] as const;
export type RequestErrorCode = (typeof requestErrorCodes)[number];

/**
 * The request is wrong, and retrying it does not help: an image cannot be read, the text exceeds the context, or an
 * option is out of range.
 *
 * @example
 * ```ts
 * import { MiniGPT4, RequestError } from "minigpt4";
 *
 * await using model = await MiniGPT4.load("nano");
 * await model.describe("damaged.jpg").catch((error) => {
 *   if (error instanceof RequestError && error.code === "invalid_image") return "(not an image)";
 *   throw error;
 * });
 * ```
 */
export class RequestError extends MiniGPT4Error {
  override name = "RequestError";
  declare readonly code: RequestErrorCode;

  constructor(code: RequestErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

/**
 * The model process exited unexpectedly. Its requests failed; it restarts, so they can be retried.
 *
 * @example
 * ```ts
 * import { EngineLostError, MiniGPT4 } from "minigpt4";
 *
 * await using model = await MiniGPT4.load("nano");
 * const describe = () => model.describe("cat.jpg");
 * const text = await describe().catch((error) => {
 *   if (error instanceof EngineLostError) return describe();
 *   throw error;
 * });
 * console.log(text);
 * ```
 */
export class EngineLostError extends MiniGPT4Error {
  override name = "EngineLostError";

  constructor(message: string, options?: ErrorOptions) {
    super("engine_lost", message, options);
  }
}

/** The error of everything that is called on a closed model. */
export function modelClosed(): MiniGPT4Error {
  return new MiniGPT4Error("model_closed", "The model is closed. Load it again with MiniGPT4.load().");
}
