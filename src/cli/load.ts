/** Loading a model for a command. */
import type { EngineOptions } from "../chat/engine/load-engine.ts";
import { MiniGPT4 } from "../chat/minigpt4.ts";
import type { ModelFlags } from "./options.ts";
import { downloadDisplay } from "./progress.ts";

/** The model that the options name; what has to be fetched for it is shown on standard error. */
export async function loadModel(
  { model, device, precision }: ModelFlags,
  signal: AbortSignal,
  options: EngineOptions = {},
): Promise<MiniGPT4> {
  const { onProgress, stop } = downloadDisplay();
  try {
    const loaded = await MiniGPT4.load(model, { ...options, device, precision, pull: { onProgress, signal } });
    // Left alone, the model's thread would hold up the end of the process.
    if (signal.aborted) await loaded.release();
    signal.throwIfAborted();
    return loaded;
  } finally {
    stop();
  }
}
