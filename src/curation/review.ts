/** What several reviewers of a project share: the pairs as they are now, and who looks at which. */

import { pairStatus, reviewersAgree } from "./decisions.ts";
import type { Action, Entry } from "./entry.ts";
import type { CurationStore } from "./store.ts";

// Which pairs a reviewer wants to see, in which order, and how far the review has come.

export const filters = [
  "unreviewed",
  "ruled",
  "edited",
  "kept",
  "dropped",
  "disagreement",
  "longest",
  "shortest",
  "all",
] as const;
export type Filter = (typeof filters)[number];

export interface Selection {
  readonly filter: Filter;
  /** Of pairs that rules dropped, only those that broke this one. */
  readonly rule?: string;
}

export interface Progress {
  /** Pairs that a person has decided, and those that it takes: what rules dropped needs nobody. */
  readonly reviewed: number;
  readonly all: number;
  /** Pairs of each filter. */
  readonly counts: Readonly<Record<Filter, number>>;
  /** Of those that rules dropped, how many each rule did; the most first. */
  readonly rules: readonly { readonly rule: string; readonly count: number }[];
  /** Milliseconds that the reviewer took for a pair, lately; undefined as long as there are too few. */
  readonly pace?: number;
}

const matches: Readonly<Record<Filter, (entry: Entry) => boolean>> = {
  unreviewed: (entry) => pairStatus(entry) === "open",
  ruled: (entry) => pairStatus(entry) === "dropped" && entry.persons.length === 0,
  edited: ({ current }) => current?.kind === "edited",
  kept: (entry) => pairStatus(entry) === "kept",
  dropped: (entry) => pairStatus(entry) === "dropped" && entry.persons.length > 0,
  disagreement: (entry) => reviewersAgree(entry) === false,
  longest: ({ current }) => current !== undefined,
  shortest: ({ current }) => current !== undefined,
  all: ({ current }) => current !== undefined,
};

/** The pairs of a selection: the longest or shortest texts first, or as the images were added. */
export function select(entries: readonly Entry[], { filter, rule }: Selection): Entry[] {
  const found = entries.filter((entry) => matches[filter](entry) && (rule === undefined || broke(entry, rule)));
  const sign = { longest: -1, shortest: 1 }[filter as string];
  return sign === undefined ? found : found.sort((a, b) => sign * (lengthOf(a) - lengthOf(b)));
}

/** @param reviewer whose pace is asked for */
function countProgress(entries: readonly Entry[], reviewer?: string): Progress {
  const counts = Object.fromEntries(filters.map((filter) => [filter, 0])) as Record<Filter, number>;
  const rules = new Map<string, number>();
  const times: number[] = [];
  let reviewed = 0;
  for (const entry of entries) {
    for (const filter of filters) if (matches[filter](entry)) counts[filter]++;
    if (entry.persons.length > 0) reviewed++;
    for (const { author, madeAt } of entry.persons) if (author === reviewer) times.push(madeAt);
    if (!matches.ruled(entry)) continue;
    for (const rule of rulesOf(entry)) rules.set(rule, (rules.get(rule) ?? 0) + 1);
  }
  const pace = reviewPace(times);
  return {
    reviewed,
    all: reviewed + counts.unreviewed,
    counts,
    rules: [...rules].map(([rule, count]) => ({ rule, count })).sort((a, b) => b.count - a.count),
    ...(pace !== undefined && { pace }),
  };
}

/** Decisions that the pace is taken from: few, so that it is that of now. */
const latest = 30;
const fewest = 3;
/** A longer time than this between two decisions was a pause. */
const pause = 3 * 60_000;

/** The mean time between the latest decisions. @param times in milliseconds, in any order */
export function reviewPace(times: readonly number[]): number | undefined {
  const ordered = times.toSorted((a, b) => a - b).slice(-latest - 1);
  const gaps = ordered.slice(1).map((time, i) => time - (ordered[i] ?? time));
  const working = gaps.filter((gap) => gap < pause);
  if (working.length < fewest) return undefined;
  return working.reduce((sum, gap) => sum + gap, 0) / working.length;
}

function rulesOf({ rules }: Entry): Set<string> {
  return new Set(rules?.decision === "drop" ? rules.reasons.map(({ rule }) => rule) : []);
}

function broke(entry: Entry, rule: string): boolean {
  return rulesOf(entry).has(rule);
}

function lengthOf({ current }: Entry): number {
  return current?.text.length ?? 0;
}

/** For so long a pair that was shown to one reviewer is not offered to another. */
const claimMilliseconds = 90_000;

/** In these a decision takes a pair out, so that what was left comes round again. */
const emptied: ReadonlySet<Filter> = new Set(["unreviewed", "ruled"]);

export interface NextOptions {
  readonly reviewer: string;
  /** The pair that was shown before; without it, from the beginning. */
  readonly from?: number;
  readonly backwards?: boolean;
  /** Pairs that are not wanted. */
  readonly skip?: ReadonlySet<number>;
}

export class ReviewQueue {
  readonly store: CurationStore;
  private readonly now: () => number;
  private readonly claims = new Map<number, { readonly reviewer: string; readonly until: number }>();
  private readonly pairs = new Map<number, Entry>();
  private seen: number | undefined;

  constructor(store: CurationStore, now: () => number = Date.now) {
    this.store = store;
    this.now = now;
  }

  /** All images, those without a text included. They are read anew only when another process has changed something. */
  entries(): Entry[] {
    const changes = this.store.changesOfOthers();
    if (changes !== this.seen) {
      this.pairs.clear();
      for (const entry of this.store.entries()) this.pairs.set(entry.image.id, entry);
      this.seen = changes;
    }
    return [...this.pairs.values()];
  }

  progress(reviewer?: string): Progress {
    return countProgress(this.entries(), reviewer);
  }

  /**
   * The pair of a selection that a reviewer is to see next; of those that nobody else looks at, if there are any. It is theirs for a
   * while then.
   */
  next(selection: Selection, { reviewer, from, backwards = false, skip = new Set() }: NextOptions): Entry | undefined {
    const entries = select(this.entries(), selection);
    const ordered = backwards ? entries.reverse() : entries;
    const round = emptied.has(selection.filter) ? [...after(ordered, from), ...ordered] : after(ordered, from);
    const wanted = round.filter(({ image: { id } }) => id !== from && !skip.has(id));
    const free = wanted.find(({ image: { id } }) => !this.isTaken(id, reviewer)) ?? wanted[0];
    if (free) this.claim(free.image.id, reviewer);
    return free;

    /** What comes after a pair, which need not be in the selection any more. */
    function after(list: readonly Entry[], id: number | undefined): readonly Entry[] {
      if (id === undefined) return list;
      const at = list.findIndex(({ image }) => image.id === id);
      if (at >= 0) return list.slice(at + 1);
      const next = list.findIndex(({ image }) => (backwards ? image.id < id : image.id > id));
      return next < 0 ? [] : list.slice(next);
    }
  }

  /** Notes that a reviewer looks at a pair. */
  claim(image: number, reviewer: string): void {
    const now = this.now();
    for (const [id, { until }] of this.claims) if (until <= now) this.claims.delete(id);
    if (!this.isTaken(image, reviewer)) this.claims.set(image, { reviewer, until: now + claimMilliseconds });
  }

  /** @throws StaleVersionError if the version is no longer the current one */
  decide(image: number, version: number, decision: "keep" | "drop", author: string): void {
    const own = this.store.entry(image)?.persons.find((verdict) => verdict.author === author);
    // It was sent twice: an answer was lost on its way.
    if (own?.version === version && own.decision === decision) return;
    this.store.addVerdict({ version, decision, judge: "person", author });
    this.reread(image);
  }

  /** @throws StaleVersionError if the version is no longer the current one */
  edit(image: number, version: number, text: string, author: string): void {
    const current = this.store.entry(image)?.current;
    if (current?.parent === version && current.text === text && current.author === author) return;
    if (current?.id === version && current.text === text) return;
    this.store.addVersion({ image, parent: version, kind: "edited", text, author });
    this.reread(image);
  }

  /** Takes back what a reviewer did last. @throws StaleVersionError if somebody has changed the text since */
  undo(author: string, only?: Action): number | undefined {
    const image = this.store.undo(author, only);
    if (image !== undefined) this.reread(image);
    return image;
  }

  private isTaken(image: number, reviewer: string): boolean {
    const claim = this.claims.get(image);
    return claim !== undefined && claim.reviewer !== reviewer && claim.until > this.now();
  }

  private reread(image: number): void {
    const entry = this.store.entry(image);
    if (entry && this.seen !== undefined) this.pairs.set(image, entry);
  }
}
