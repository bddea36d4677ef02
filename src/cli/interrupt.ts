/** Ctrl-C. */

/** Thrown where work was stopped by Ctrl-C. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** What a shell reports of a program that was ended by Ctrl-C. */
export const interruptedExitCode = 130;

/** A signal for the work of a command: the first Ctrl-C lets it stop and clean up, the second ends the process at once. */
export function untilInterrupted(): AbortSignal {
  const controller = new AbortController();
  process.on("SIGINT", () => {
    if (controller.signal.aborted) process.exit(interruptedExitCode);
    controller.abort(new Interrupted("Interrupted"));
  });
  return controller.signal;
}
