/** Work in several steps, each counted in bytes, as it is shown on standard error. */
import { type CountDisplay, countDisplay } from "./count-display.ts";
import { formatBytes } from "./text.ts";

export interface StepDisplay {
  update(step: string, done: number, total: number): void;
  /** Ends the line of the bar. */
  stop(): void;
}

export function stepDisplay(stream: NodeJS.WriteStream = process.stderr): StepDisplay {
  let current: { readonly step: string; readonly display: CountDisplay } | undefined;
  return {
    update(step, done, total) {
      if (current?.step !== step) {
        current?.display.stop();
        current = { step, display: countDisplay(step, stream, (bytes) => formatBytes(Math.round(bytes))) };
      }
      current.display.update(done, total);
    },
    stop() {
      current?.display.stop();
      current = undefined;
    },
  };
}
