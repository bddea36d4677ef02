/** Status of a project: inputs and outputs of each step, decisions by reviewer, and costs. */

import { groupBy, type PairStatus, pairStatus, reviewersAgree } from "./decisions.ts";
import { describeStep } from "./describe.ts";
import type { Entry, Version, VersionKind } from "./entry.ts";
import { polishStep, requestStep } from "./polishing/plan.ts";
import type { CurationStore } from "./store.ts";

/** Images that went into a step and came out of it. */
interface StepCounts {
  readonly in: number;
  readonly out: number;
}

/** Texts by one model or person. */
interface AuthorCounts {
  readonly author: string;
  readonly kind: VersionKind;
  readonly texts: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Sum over all texts, in seconds; texts may be generated concurrently. */
  readonly seconds: number;
}

interface PersonCounts {
  readonly person: string;
  readonly kept: number;
  readonly dropped: number;
}

export interface ProjectStatus {
  readonly images: number;
  readonly steps: {
    readonly describe: StepCounts;
    /** Short descriptions, and those that became longer. */
    readonly continue: StepCounts;
    readonly polish: StepCounts;
    /** Texts that rules judged, and those that break no rule. */
    readonly filter: StepCounts;
    /** Texts that no rule drops or a person judged, and those that a person judged. */
    readonly review: StepCounts;
  };
  /** Images whose text breaks a rule; a text may break several. */
  readonly rules: Readonly<Record<string, number>>;
  readonly persons: readonly PersonCounts[];
  /** Images that several persons judged, and those of them on which they disagree. */
  readonly judgedBySeveral: number;
  readonly disagreements: number;
  /** Images whose current text is an edit. */
  readonly edited: number;
  /** By step: images for which it failed since their text last changed. */
  readonly failures: Readonly<Record<string, number>>;
  readonly standing: Readonly<Record<PairStatus, number>>;
  readonly authors: readonly AuthorCounts[];
}

/** Steps that record failures. */
const failingSteps = [describeStep, polishStep, requestStep];

export function projectStatus(store: CurationStore): ProjectStatus {
  const entries = store.entries();
  const versions = entries.map(({ image }) => store.versions(image.id));
  const count = <T>(items: readonly T[], holds: (item: T) => boolean) => items.filter(holds).length;
  const having = (holds: (version: Version) => boolean) => count(versions, (those) => those.some(holds));
  const described = having(({ kind }) => kind === "described");
  const judged = entries.filter(({ rules }) => rules);
  const agreements = entries.map(reviewersAgree).filter((agreement) => agreement !== undefined);
  const standings = entries.map(pairStatus);
  const standing = (status: PairStatus) => count(standings, (found) => found === status);
  const failures = failingSteps.map((step) => [step, store.failures(step).size] as const);
  return {
    images: entries.length,
    steps: {
      describe: { in: entries.length, out: described },
      continue: {
        in: having((version) => readContinuations(version).length > 0),
        out: having((version) => readContinuations(version).includes("added")),
      },
      polish: { in: described, out: having(({ kind }) => kind === "polished") },
      filter: { in: judged.length, out: count(judged, ({ rules }) => rules?.decision !== "drop") },
      review: {
        in: count(entries, (entry) => entry.persons.length > 0 || pairStatus(entry) === "open"),
        out: count(entries, ({ persons }) => persons.length > 0),
      },
    },
    rules: countByRule(judged),
    persons: countByPerson(entries),
    judgedBySeveral: agreements.length,
    disagreements: count(agreements, (agree) => !agree),
    edited: count(entries, ({ current }) => current?.kind === "edited"),
    failures: Object.fromEntries(failures.filter(([, images]) => images > 0)),
    standing: {
      empty: standing("empty"),
      open: standing("open"),
      kept: standing("kept"),
      dropped: standing("dropped"),
    },
    authors: countByAuthor(versions.flat()),
  };
}

/** Details may come from another program, so their type is checked. */
function readContinuations({ details }: Version): readonly unknown[] {
  return Array.isArray(details.continuations) ? details.continuations : [];
}

function countByRule(judged: readonly Entry[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { rules } of judged) {
    if (rules?.decision !== "drop") continue;
    for (const rule of new Set(rules.reasons.map((reason) => reason.rule)))
      counts.set(rule, (counts.get(rule) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a));
}

function countByPerson(entries: readonly Entry[]): PersonCounts[] {
  const verdicts = groupBy(
    entries.flatMap(({ persons }) => persons),
    ({ author }) => author,
  );
  return [...verdicts].map(([person, those]) => {
    const kept = those.filter(({ decision }) => decision === "keep").length;
    return { person, kept, dropped: those.length - kept };
  });
}

function countByAuthor(versions: readonly Version[]): AuthorCounts[] {
  // Reverting an edit writes no text: the restored text is someone else's.
  const written = versions.filter(({ details }) => details.undoes === undefined);
  const groups = groupBy(written, ({ author, kind }) => JSON.stringify([kind, author]));
  return [...groups.values()].map((those) => {
    const [{ author, kind }] = those as [Version];
    const sum = (key: "promptTokens" | "completionTokens" | "duration") =>
      those.reduce((total, { details }) => total + (details[key] ?? 0), 0);
    return {
      author,
      kind,
      texts: those.length,
      promptTokens: sum("promptTokens"),
      completionTokens: sum("completionTokens"),
      seconds: Math.round(sum("duration") / 1000),
    };
  });
}
