/** Stop strings in streamed text. */

/** Cuts a stream of text before the first stop string, even if the stop string arrives in several parts. */
export class StopFilter {
  private readonly stops: readonly string[];
  private buffer = "";
  private isStopped = false;

  constructor(stops: readonly string[]) {
    this.stops = stops.filter((stop) => stop !== "");
  }

  /** Whether a stop string has arrived; no text is returned after it. */
  get stopped(): boolean {
    return this.isStopped;
  }

  /** Text that is certainly before any stop string; a possible beginning of one is buffered. */
  push(text: string): string {
    if (this.isStopped) return "";
    this.buffer += text;
    const cut = this.findStop();
    if (cut !== undefined) {
      this.isStopped = true;
      return this.take(cut);
    }
    return this.take(this.buffer.length - this.partialStopLength());
  }

  /** The buffered text, when no more text follows. */
  flush(): string {
    return this.isStopped ? "" : this.take(this.buffer.length);
  }

  /** Start of the stop string that is complete first, so that the result does not depend on how the text is split. */
  private findStop(): number | undefined {
    let first: { start: number; end: number } | undefined;
    for (const stop of this.stops) {
      const start = this.buffer.indexOf(stop);
      const end = start + stop.length;
      if (start < 0 || (first && (end > first.end || (end === first.end && start > first.start)))) continue;
      first = { start, end };
    }
    return first?.start;
  }

  private take(length: number): string {
    const text = this.buffer.slice(0, length);
    this.buffer = this.isStopped ? "" : this.buffer.slice(length);
    return text;
  }

  /** Length of the longest suffix of the buffer that is a prefix of a stop string. */
  private partialStopLength(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.buffer.length); length > 0; length--) {
      const end = this.buffer.slice(-length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
