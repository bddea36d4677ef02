/** What the page and the worker with the model say to each other, beside the messages of the engine's port. */
import type { ModelInfo } from "../../src/engine/engine.ts";
import type { FromEngine, ToEngine } from "../../src/engine/port.ts";
import type { LoadProgress } from "../backend/backend.ts";

/** Where the model runs. */
export type Device = "WebGPU" | "WebAssembly";

interface LoadMessage {
  readonly kind: "load";
  /** Address of `model.json`. */
  readonly url: string;
}

export type ToWorker = ToEngine | LoadMessage;

/** `progress` any number of times, then `ready` or `unable`; then what the engine says. */
export type FromWorker =
  | FromEngine
  | { readonly kind: "progress"; readonly progress: LoadProgress }
  | { readonly kind: "ready"; readonly model: ModelInfo; readonly device: Device; readonly threads: number }
  | { readonly kind: "unable"; readonly message: string };
