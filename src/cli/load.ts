/** Loading a model for a command. */
import { MiniGPT4 } from "../chat/minigpt4.ts";
import type { ModelFlags } from "./options.ts";
import { downloadDisplay } from "./progress.ts";

/** The model that the options name; what has to be fetched for it is shown on standard error. */
export async function loadModel({ model, device, precision }: ModelFlags, signal: AbortSignal): Promise<MiniGPT4> {
  const { onProgress, stop } = downloadDisplay();
  try {
    const loaded = await MiniGPT4.load(model, { device, precision, pull: { onProgress, signal } });
    signal.throwIfAborted();
    return loaded;
  } finally {
    stop();
  }
}
