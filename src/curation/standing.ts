/** What becomes of a picture and its text, by what rules and persons said of it. */
import type { Entry } from "./entry.ts";

/** Nothing was written yet; nobody has decided; it is taken into the data set, or not. */
export type Standing = "empty" | "open" | "kept" | "dropped";

/** A person's word counts more than that of rules, and the later word of persons more than an earlier one. */
export function standingOf({ current, rules, persons }: Entry): Standing {
  if (!current) return "empty";
  const person = persons.at(-1);
  if (person) return person.decision === "keep" ? "kept" : "dropped";
  return rules?.decision === "drop" ? "dropped" : "open";
}

/** Whether all persons who judged it decided alike; undefined if fewer than two did. */
export function agreementOf({ persons }: Entry): boolean | undefined {
  if (persons.length < 2) return undefined;
  return persons.every(({ decision }) => decision === persons[0]?.decision);
}
