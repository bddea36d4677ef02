/** Decisions on pairs: their status, agreement of reviewers, and the last action of a reviewer that can be undone. */
import type { Entry, VersionDetails } from "./entry.ts";

/** Of what one person did: a verdict, in the order of the table. */
export interface VerdictMade {
  readonly image: number;
  readonly version: number;
  readonly decision: "keep" | "drop" | "withdrawn";
  readonly madeAt: number;
}

/** A version that they made: an edit, or the undoing of one. */
export interface VersionMade {
  readonly image: number;
  readonly id: number;
  readonly undoes: VersionDetails["undoes"];
  readonly madeAt: number;
}

export type LastAction =
  | { readonly kind: "keep" | "drop"; readonly image: number }
  | { readonly kind: "edit"; readonly image: number; readonly version: number };

/** Undoing goes backwards: each withdrawal and each undoing takes the last of its kind away. */
export function lastAction(verdicts: readonly VerdictMade[], versions: readonly VersionMade[]): LastAction | undefined {
  const done: LastAction[] = [];
  const takeBack = (isIt: (action: LastAction) => boolean) => {
    const at = done.findLastIndex(isIt);
    if (at >= 0) done.splice(at, 1);
  };
  const edits = [...versions];
  const editsBefore = (isBefore: (version: VersionMade) => boolean) => {
    while (edits[0] && isBefore(edits[0])) {
      const { image, id, undoes } = edits.shift() as VersionMade;
      if (undoes === undefined) done.push({ kind: "edit", image, version: id });
      else takeBack((action) => action.kind === "edit" && action.version === undoes);
    }
  };
  for (const { image, version, decision, madeAt } of verdicts) {
    // Within a millisecond, who judged a version has made it before.
    editsBefore((edit) => edit.madeAt < madeAt || (edit.madeAt === madeAt && edit.id <= version));
    if (decision === "withdrawn") takeBack((action) => action.kind !== "edit" && action.image === image);
    else done.push({ kind: decision, image });
  }
  editsBefore(() => true);
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

/** Whether all reviewers decided alike; undefined with fewer than two reviewers. */
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
