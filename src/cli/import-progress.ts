/** The steps of an import, as they are shown: photos are compared block by block, all else is counted in bytes. */
import type { StepDisplay } from "./step-display.ts";

export function importProgress(display: StepDisplay): (step: string, done: number, total: number) => void {
  return (step, done, total) => {
    if (step === "Comparing") display.update("Comparing blocks of the image encoder", done, total, String);
    else display.update(step, done, total);
  };
}
