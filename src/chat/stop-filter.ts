/** Cuts a stream of text before the first stop string, also where the stop string arrives in parts. */
export class StopFilter {
  private readonly stops: readonly string[];
  private held = "";
  private found = false;

  constructor(stops: readonly string[]) {
    this.stops = stops.filter((stop) => stop !== "");
  }

  /** Whether a stop string has arrived; nothing comes out after it. */
  get stopped(): boolean {
    return this.found;
  }

  /** Text that surely lies before any stop string; what may be the beginning of one is held back. */
  push(text: string): string {
    if (this.found) return "";
    this.held += text;
    const cut = this.firstStop();
    if (cut !== undefined) {
      this.found = true;
      return this.take(cut);
    }
    return this.take(this.held.length - this.possibleStart());
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    return this.found ? "" : this.take(this.held.length);
  }

  /** Where the stop string begins that is complete first: the result does not depend on how the text is cut up. */
  private firstStop(): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.stops) {
      const start = this.held.indexOf(stop);
      const end = start + stop.length;
      if (start < 0 || (first && (end > first.end || (end === first.end && start > first.start)))) continue;
      first = { start, end };
    }
    return first?.start;
  }

  private take(length: number): string {
    const text = this.held.slice(0, length);
    this.held = this.found ? "" : this.held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text that begins a stop string. */
  private possibleStart(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.held.length); length > 0; length--) {
      const end = this.held.slice(-length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
