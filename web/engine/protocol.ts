/** Messages between the page and the worker that runs the model, in addition to those of the engine's port. */
import type { ModelInfo } from "../../src/engine/engine.ts";
import type { FromService, ToService } from "../../src/engine/port.ts";
import type { LoadProgress } from "../backend/backend.ts";

export type Device = "WebGPU" | "WebAssembly";

interface LoadMessage {
  readonly kind: "load";
  /** Address of `model.json`. */
  readonly url: string;
}

export type ToWorker = ToService | LoadMessage;

/** Any number of `progress`, then `ready` or `unable`; after `ready`, the engine's messages. */
export type FromWorker =
  | FromService
  | { readonly kind: "progress"; readonly progress: LoadProgress }
  | { readonly kind: "ready"; readonly model: ModelInfo; readonly device: Device; readonly threads: number }
  | { readonly kind: "unable"; readonly message: string };
