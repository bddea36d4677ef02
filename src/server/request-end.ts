/** What ends the work for a request before it is done: the client goes away, its time is over, or the server stops. */
import { openAiError } from "./openai-error.ts";

export class RequestEnd {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly others: readonly AbortSignal[];

  constructor(timeoutSeconds: number, others: readonly AbortSignal[]) {
    this.others = others;
    this.timer = setTimeout(() => this.controller.abort(timeOver(timeoutSeconds)), timeoutSeconds * 1000);
    for (const signal of others) {
      if (signal.aborted) this.end(signal.reason);
      signal.addEventListener("abort", this.passOn);
    }
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Ends the work for a reason of the caller's. */
  abort(reason: Error): void {
    this.controller.abort(reason);
  }

  /** The work is done: nothing is waited for any more. */
  release(): void {
    clearTimeout(this.timer);
    for (const signal of this.others) signal.removeEventListener("abort", this.passOn);
  }

  private readonly passOn = (event: Event): void => {
    if (event.target instanceof AbortSignal) this.end(event.target.reason);
  };

  /** A reason is thrown later, and what is thrown should be an error. */
  private end(reason: unknown): void {
    this.controller.abort(reason instanceof Error ? reason : new Error(String(reason)));
  }
}

/** Clients of OpenAI ask again by themselves after an error of the server, which would take as long and end the same way. */
function timeOver(seconds: number) {
  const message = `The answer took longer than ${seconds} seconds; ask for fewer tokens`;
  return openAiError(504, { message, type: "timeout", code: "timeout" }, { "x-should-retry": "false" });
}
