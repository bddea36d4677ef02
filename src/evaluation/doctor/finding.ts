/** What the doctor looks at, and what it finds. */

/** In the order in which they are looked at. */
export const checks = [
  "config",
  "files",
  "dimensions",
  "values",
  "delta",
  "tokenizer",
  "language",
  "pictures",
] as const;
export type Check = (typeof checks)[number];

export interface Finding {
  readonly check: Check;
  /** A fault keeps the model from working; a note does not. */
  readonly kind: "fault" | "note";
  readonly what: string;
  /** What can be done about it. */
  readonly remedy?: string | undefined;
}

/** Collects what the checks find. */
export class Findings {
  readonly all: Finding[] = [];

  fault(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "fault", what, remedy });
  }

  note(check: Check, what: string, remedy?: string): void {
    this.all.push({ check, kind: "note", what, remedy });
  }

  /** The result of `work`; what it throws is a fault, and the result undefined. */
  async attempt<T>(check: Check, work: () => T | Promise<T>, remedy?: string): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.fault(check, error instanceof Error ? error.message : String(error), remedy);
      return undefined;
    }
  }
}
