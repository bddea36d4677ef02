/** Applies rules to the texts of a project. */
import { setImmediate } from "node:timers/promises";
import type { Reason } from "./entry.ts";
import type { RuleSet } from "./rules/rule-set.ts";
import type { CurationStore } from "./store.ts";

/** Number of texts between checks of the signal. */
const pauseEvery = 20;

export interface FilterOptions {
  /** Reports what the rules would do without writing anything. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

export interface DroppedText {
  /** Id and name of the image. */
  readonly image: number;
  readonly name: string;
  readonly text: string;
  readonly reasons: readonly Reason[];
}

/** The verdicts of the rules on all texts, including those of earlier runs. */
export interface FilterReport {
  /** Digest of the rule set. */
  readonly rules: string;
  /** Texts that were judged in this run, and those that the same rules judged in an earlier one. */
  readonly judged: number;
  readonly known: number;
  /** Images that have no text yet. */
  readonly empty: number;
  readonly kept: number;
  readonly dropped: readonly DroppedText[];
  /** Number of texts that break each rule, in descending order. */
  readonly broken: Readonly<Record<string, number>>;
}

/**
 * Applies the rules to the current text of every image; decisions of persons stay. Each verdict is written immediately, so that an
 * interrupted run continues where it stopped: rules are applied to a text once.
 *
 * @throws the signal's reason when it is aborted
 */
export async function applyRules(
  store: CurationStore,
  rules: RuleSet,
  options: FilterOptions = {},
): Promise<FilterReport> {
  const { dryRun = false, signal, onProgress } = options;
  const entries = store.entries();
  const dropped: DroppedText[] = [];
  const broken = new Map<string, number>();
  let [judged, known, kept] = [0, 0, 0];
  for (const [i, { image, current, rules: verdict }] of entries.entries()) {
    if (i % pauseEvery === 0) {
      // Yield to the event loop, so that Ctrl-C is handled.
      await setImmediate();
      signal?.throwIfAborted();
      onProgress?.(i, entries.length);
    }
    if (!current) continue;
    const isKnown = verdict?.author === rules.digest;
    const reasons = isKnown ? verdict.reasons : rules.check(current.text);
    if (isKnown) known++;
    else judged++;
    if (!isKnown && !dryRun) {
      const decision = reasons.length > 0 ? "drop" : "keep";
      store.addVerdict({ version: current.id, decision, judge: "rules", author: rules.digest, reasons });
    }
    if (reasons.length === 0) kept++;
    else dropped.push({ image: image.id, name: image.name, text: current.text, reasons });
    for (const { rule } of reasons) broken.set(rule, (broken.get(rule) ?? 0) + 1);
  }
  onProgress?.(entries.length, entries.length);
  return {
    rules: rules.digest,
    judged,
    known,
    empty: entries.length - judged - known,
    kept,
    dropped,
    broken: Object.fromEntries([...broken].sort(([, a], [, b]) => b - a)),
  };
}
