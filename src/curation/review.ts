/** The review of a project: filters, progress, and a queue that several reviewers share. */
import { pairStatus, reviewersAgree } from "./decisions.ts";
import type { Action, Entry } from "./entry.ts";
import type { CurationStore } from "./store.ts";

/** Which pairs a reviewer sees: undecided ones, those that rules dropped, ... `longest` and `shortest` sort all pairs. */
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
  /** Only pairs that break this rule. */
  readonly rule?: string;
}

export interface Progress {
  /** Pairs with a decision, and all that need one; pairs that rules dropped do not. */
  readonly reviewed: number;
  readonly all: number;
  /** Number of pairs of each filter. */
  readonly counts: Readonly<Record<Filter, number>>;
  /** Number of pairs that each rule dropped, in descending order. */
  readonly rules: readonly { readonly rule: string; readonly count: number }[];
  /** Recent milliseconds per pair of the reviewer; undefined if there are too few decisions. */
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

/** Selects pairs: in the order of the images, or by the length of their texts. */
export function select(entries: readonly Entry[], { filter, rule }: Selection): Entry[] {
  const found = entries.filter((entry) => matches[filter](entry) && (rule === undefined || breaks(entry, rule)));
  const sign = { longest: -1, shortest: 1 }[filter as string];
  return sign === undefined ? found : found.sort((a, b) => sign * (textLength(a) - textLength(b)));
}

/** @param reviewer compute the pace of this reviewer */
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
    for (const rule of brokenRules(entry)) rules.set(rule, (rules.get(rule) ?? 0) + 1);
  }
  return {
    reviewed,
    all: reviewed + counts.unreviewed,
    counts,
    rules: [...rules].map(([rule, count]) => ({ rule, count })).sort((a, b) => b.count - a.count),
    pace: reviewPace(times),
  };
}

/** Number of recent decisions that determine the pace. */
const maxGaps = 30;
const minGaps = 3;
/** A longer time between two decisions is a break, in milliseconds. */
const minBreak = 3 * 60_000;

/** The mean time between the latest decisions, without breaks. @param times Unix times in milliseconds, in any order */
export function reviewPace(times: readonly number[]): number | undefined {
  const ordered = times.toSorted((a, b) => a - b).slice(-maxGaps - 1);
  const gaps = ordered.slice(1).map((time, i) => time - (ordered[i] ?? time));
  const working = gaps.filter((gap) => gap < minBreak);
  if (working.length < minGaps) return undefined;
  return working.reduce((sum, gap) => sum + gap, 0) / working.length;
}

function brokenRules({ rules }: Entry): Set<string> {
  return new Set(rules?.decision === "drop" ? rules.reasons.map(({ rule }) => rule) : []);
}

function breaks(entry: Entry, rule: string): boolean {
  return brokenRules(entry).has(rule);
}

function textLength({ current }: Entry): number {
  return current?.text.length ?? 0;
}

/** How long a pair is reserved for the reviewer who sees it. */
const claimMilliseconds = 90_000;

/** Filters whose pairs leave them when they are decided; skipped pairs come round again. */
const emptying: ReadonlySet<Filter> = new Set(["unreviewed", "ruled"]);

export interface NextOptions {
  readonly reviewer: string;
  /** Id of the previous pair. @default start at the first one */
  readonly from?: number;
  readonly backwards?: boolean;
  /** Ids of pairs to skip. */
  readonly skip?: ReadonlySet<number>;
}

/** Hands out pairs to reviewers and records their decisions. */
export class ReviewQueue {
  readonly store: CurationStore;
  private readonly now: () => number;
  private readonly claims = new Map<number, { readonly reviewer: string; readonly until: number }>();
  private readonly pairs = new Map<number, Entry>();
  /** `changesOfOthers` when the pairs were read. */
  private seen?: number;

  constructor(store: CurationStore, now: () => number = Date.now) {
    this.store = store;
    this.now = now;
  }

  /** All entries, including those without a text. They are cached until another process changes the project. */
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
   * Picks and reserves the next pair for a reviewer, preferably one that is not reserved by another. @returns undefined if there is no
   * other pair
   */
  next(selection: Selection, { reviewer, from, backwards = false, skip = new Set() }: NextOptions): Entry | undefined {
    const entries = select(this.entries(), selection);
    const ordered = backwards ? entries.reverse() : entries;
    const round = emptying.has(selection.filter) ? [...after(ordered, from), ...ordered] : after(ordered, from);
    const candidates = round.filter(({ image: { id } }) => id !== from && !skip.has(id));
    const next = candidates.find(({ image: { id } }) => !this.isTaken(id, reviewer)) ?? candidates[0];
    if (next) this.claim(next.image.id, reviewer);
    return next;

    /** The pairs after a pair, which may have left the selection. */
    function after(list: readonly Entry[], id?: number): readonly Entry[] {
      if (id === undefined) return list;
      const at = list.findIndex(({ image }) => image.id === id);
      if (at >= 0) return list.slice(at + 1);
      const next = list.findIndex(({ image }) => (backwards ? image.id < id : image.id > id));
      return next < 0 ? [] : list.slice(next);
    }
  }

  /** Reserves a pair for a reviewer, unless it is reserved for another. */
  claim(image: number, reviewer: string): void {
    const now = this.now();
    for (const [id, { until }] of this.claims) if (until <= now) this.claims.delete(id);
    if (!this.isTaken(image, reviewer)) this.claims.set(image, { reviewer, until: now + claimMilliseconds });
  }

  /** Records a decision. @throws StaleVersionError if the version is no longer the current one */
  decide(image: number, version: number, decision: "keep" | "drop", author: string): void {
    const own = this.store.entry(image)?.persons.find((verdict) => verdict.author === author);
    // A retry of a request whose response was lost.
    if (own?.version === version && own.decision === decision) return;
    this.store.addVerdict({ version, decision, judge: "person", author });
    this.reread(image);
  }

  /** Replaces the text of a version. @throws StaleVersionError if the version is no longer the current one */
  edit(image: number, version: number, text: string, author: string): void {
    const current = this.store.entry(image)?.current;
    if (current?.parent === version && current.text === text && current.author === author) return;
    if (current?.id === version && current.text === text) return;
    this.store.addVersion({ image, parent: version, kind: "edited", text, author });
    this.reread(image);
  }

  /** Undoes the last action of a reviewer. @throws StaleVersionError if someone has changed the text since */
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
