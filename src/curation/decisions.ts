/** Decisions on pairs: their status, agreement of reviewers, and the last action of a reviewer that can be undone. */
import type { Entry, VersionDetails } from "./entry.ts";

/** A verdict of one person, in the order of the table. */
export interface VerdictMade {
  readonly image: number;
  readonly version: number;
  readonly decision: "keep" | "drop" | "withdrawn";
  readonly madeAt: number;
}

/** A version by one person: an edit, or the undoing of one. */
export interface VersionMade {
  readonly image: number;
  readonly id: number;
  readonly undoes: VersionDetails["undoes"];
  readonly madeAt: number;
}

export type LastAction =
  | { readonly kind: "keep" | "drop"; readonly image: number }
  | { readonly kind: "edit"; readonly image: number; readonly version: number };

/** Finds the last action that was not undone: each withdrawal and each reverted edit removes the last action of its kind. */
export function lastAction(verdicts: readonly VerdictMade[], versions: readonly VersionMade[]): LastAction | undefined {
  const done: LastAction[] = [];
  const removeLast = (matches: (action: LastAction) => boolean) => {
    const at = done.findLastIndex(matches);
    if (at >= 0) done.splice(at, 1);
  };
  const edits = [...versions];
  const replayEdits = (isBefore: (version: VersionMade) => boolean) => {
    while (edits[0] && isBefore(edits[0])) {
      const { image, id, undoes } = edits.shift() as VersionMade;
      if (undoes === undefined) done.push({ kind: "edit", image, version: id });
      else removeLast((action) => action.kind === "edit" && action.version === undoes);
    }
  };
  for (const { image, version, decision, madeAt } of verdicts) {
    // Within one millisecond, a verdict on a version comes after the version.
    replayEdits((edit) => edit.madeAt < madeAt || (edit.madeAt === madeAt && edit.id <= version));
    if (decision === "withdrawn") removeLast((action) => action.kind !== "edit" && action.image === image);
    else done.push({ kind: decision, image });
  }
  replayEdits(() => true);
  return done.at(-1);
}

/** Whether a pair has no text yet, waits for a decision, or was kept or dropped. */
export type PairStatus = "empty" | "open" | "kept" | "dropped";

/** Decisions of persons override rules; later decisions override earlier ones. */
export function pairStatus({ current, rules, persons }: Entry): PairStatus {
  if (!current) return "empty";
  const person = persons.at(-1);
  if (person) return person.decision === "keep" ? "kept" : "dropped";
  return rules?.decision === "drop" ? "dropped" : "open";
}

/** Whether all reviewers agree; undefined with fewer than two reviewers. */
export function reviewersAgree({ persons }: Entry): boolean | undefined {
  if (persons.length < 2) return undefined;
  return persons.every(({ decision }) => decision === persons[0]?.decision);
}

/** Groups values by key, in the order of their first values. */
export function groupBy<T, Key>(values: readonly T[], key: (value: T) => Key): Map<Key, T[]> {
  const groups = new Map<Key, T[]>();
  for (const value of values) {
    const found = groups.get(key(value));
    if (found) found.push(value);
    else groups.set(key(value), [value]);
  }
  return groups;
}
