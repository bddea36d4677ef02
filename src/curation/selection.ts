/** Which pairs a reviewer wants to see, in which order, and how far the review has come. */
import type { Entry } from "./entry.ts";
import { agreementOf, standingOf } from "./standing.ts";

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
  unreviewed: (entry) => standingOf(entry) === "open",
  ruled: (entry) => standingOf(entry) === "dropped" && entry.persons.length === 0,
  edited: ({ current }) => current?.kind === "edited",
  kept: (entry) => standingOf(entry) === "kept",
  dropped: (entry) => standingOf(entry) === "dropped" && entry.persons.length > 0,
  disagreement: (entry) => agreementOf(entry) === false,
  longest: ({ current }) => current !== undefined,
  shortest: ({ current }) => current !== undefined,
  all: ({ current }) => current !== undefined,
};

/** The pairs of a selection: the longest or shortest texts first, or as the pictures were added. */
export function select(entries: readonly Entry[], { filter, rule }: Selection): Entry[] {
  const found = entries.filter((entry) => matches[filter](entry) && (rule === undefined || broke(entry, rule)));
  const sign = { longest: -1, shortest: 1 }[filter as string];
  return sign === undefined ? found : found.sort((a, b) => sign * (lengthOf(a) - lengthOf(b)));
}

/** @param reviewer whose pace is asked for */
export function progressOf(entries: readonly Entry[], reviewer?: string): Progress {
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
  const pace = paceOf(times);
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
export function paceOf(times: readonly number[]): number | undefined {
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
