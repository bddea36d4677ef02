/** Work in several steps, each counted in bytes unless it says otherwise, as it is shown on standard error. */
import { type CountDisplay, countDisplay } from "./count-display.ts";
import { formatBytes } from "./text.ts";

export interface StepDisplay {
  /** @param show how a count is written; as bytes by default */
  update(step: string, done: number, total: number, show?: (count: number) => string): void;
  /** Ends the line of the bar. */
  stop(): void;
}

export function stepDisplay(stream: NodeJS.WriteStream = process.stderr): StepDisplay {
  let current: { readonly step: string; readonly display: CountDisplay } | undefined;
  return {
    update(step, done, total, show = (bytes) => formatBytes(Math.round(bytes))) {
      if (current?.step !== step) {
        current?.display.stop();
        current = { step, display: countDisplay(step, stream, show) };
      }
      current.display.update(done, total);
    },
    stop() {
      current?.display.stop();
      current = undefined;
    },
  };
}
