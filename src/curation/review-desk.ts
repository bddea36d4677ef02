/** What several reviewers of a project share: the pairs as they are now, and who looks at which. */
import type { Action, Entry } from "./entry.ts";
import { type Filter, type Progress, progressOf, type Selection, select } from "./selection.ts";
import type { CurationStore } from "./store.ts";

/** For so long a pair that was shown to one reviewer is not offered to another. */
const claimMilliseconds = 90_000;

/** In these a decision takes a pair out, so that what was left comes round again. */
const emptied: ReadonlySet<Filter> = new Set(["unreviewed", "ruled"]);

export interface TurnOptions {
  readonly reviewer: string;
  /** The pair that was shown before; without it, from the beginning. */
  readonly from?: number;
  readonly backwards?: boolean;
  /** Pairs that are not wanted. */
  readonly skip?: ReadonlySet<number>;
}

export class ReviewDesk {
  readonly store: CurationStore;
  private readonly now: () => number;
  private readonly claims = new Map<number, { readonly reviewer: string; readonly until: number }>();
  private readonly pairs = new Map<number, Entry>();
  private seen: number | undefined;

  constructor(store: CurationStore, now: () => number = Date.now) {
    this.store = store;
    this.now = now;
  }

  /** All pictures, those without a text included. They are read anew only when another process has changed something. */
  entries(): Entry[] {
    const changes = this.store.changesOfOthers();
    if (changes !== this.seen) {
      this.pairs.clear();
      for (const entry of this.store.entries()) this.pairs.set(entry.picture.id, entry);
      this.seen = changes;
    }
    return [...this.pairs.values()];
  }

  progress(reviewer?: string): Progress {
    return progressOf(this.entries(), reviewer);
  }

  /**
   * The pair of a selection that a reviewer is to see next; of those that nobody else looks at, if there are any. It is theirs for a
   * while then.
   */
  turn(selection: Selection, { reviewer, from, backwards = false, skip = new Set() }: TurnOptions): Entry | undefined {
    const entries = select(this.entries(), selection);
    const ordered = backwards ? entries.reverse() : entries;
    const round = emptied.has(selection.filter) ? [...after(ordered, from), ...ordered] : after(ordered, from);
    const wanted = round.filter(({ picture: { id } }) => id !== from && !skip.has(id));
    const free = wanted.find(({ picture: { id } }) => !this.isTaken(id, reviewer)) ?? wanted[0];
    if (free) this.claim(free.picture.id, reviewer);
    return free;

    /** What comes after a pair, which need not be in the selection any more. */
    function after(list: readonly Entry[], id: number | undefined): readonly Entry[] {
      if (id === undefined) return list;
      const at = list.findIndex(({ picture }) => picture.id === id);
      if (at >= 0) return list.slice(at + 1);
      const next = list.findIndex(({ picture }) => (backwards ? picture.id < id : picture.id > id));
      return next < 0 ? [] : list.slice(next);
    }
  }

  /** Notes that a reviewer looks at a pair. */
  claim(picture: number, reviewer: string): void {
    const now = this.now();
    for (const [id, { until }] of this.claims) if (until <= now) this.claims.delete(id);
    if (!this.isTaken(picture, reviewer)) this.claims.set(picture, { reviewer, until: now + claimMilliseconds });
  }

  /** @throws StaleVersionError if the version is no longer the current one */
  judge(picture: number, version: number, decision: "keep" | "drop", author: string): void {
    const own = this.store.entry(picture)?.persons.find((verdict) => verdict.author === author);
    // It was sent twice: an answer was lost on its way.
    if (own?.version === version && own.decision === decision) return;
    this.store.addVerdict({ version, decision, judge: "person", author });
    this.reread(picture);
  }

  /** @throws StaleVersionError if the version is no longer the current one */
  edit(picture: number, version: number, text: string, author: string): void {
    const current = this.store.entry(picture)?.current;
    if (current?.parent === version && current.text === text && current.author === author) return;
    if (current?.id === version && current.text === text) return;
    this.store.addVersion({ picture, parent: version, kind: "edited", text, author });
    this.reread(picture);
  }

  /** Takes back what a reviewer did last. @throws StaleVersionError if somebody has changed the text since */
  undo(author: string, only?: Action): number | undefined {
    const picture = this.store.undo(author, only);
    if (picture !== undefined) this.reread(picture);
    return picture;
  }

  private isTaken(picture: number, reviewer: string): boolean {
    const claim = this.claims.get(picture);
    return claim !== undefined && claim.reviewer !== reviewer && claim.until > this.now();
  }

  private reread(picture: number): void {
    const entry = this.store.entry(picture);
    if (entry && this.seen !== undefined) this.pairs.set(picture, entry);
  }
}
