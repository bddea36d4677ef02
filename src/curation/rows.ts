/** From rows of the tables to what they say. */
import type { Entry, Picture, Verdict, Version, VersionKind } from "./entry.ts";

export interface PictureRow {
  readonly id: number;
  readonly path: string;
  readonly offset: number | null;
  readonly length: number | null;
  readonly name: string;
  readonly sha256: string;
}

export interface VersionRow {
  readonly id: number;
  readonly picture: number;
  readonly parent: number | null;
  readonly kind: VersionKind;
  readonly text: string;
  readonly author: string;
  readonly prompt: string | null;
  readonly details: string;
  readonly made_at: number;
}

export interface VerdictRow {
  readonly id: number;
  readonly version: number;
  readonly decision: Verdict["decision"];
  readonly judge: Verdict["judge"];
  readonly author: string;
  readonly reasons: string;
  readonly made_at: number;
}

/** @param versions and @param verdicts of the picture, oldest first */
export function entryOf(row: PictureRow, versions: readonly VersionRow[], verdicts: readonly VerdictRow[]): Entry {
  const last = versions.at(-1);
  const rules = verdicts.findLast(({ judge, version }) => judge === "rules" && version === last?.id);
  const given = new Map<string, VerdictRow[]>();
  for (const verdict of verdicts) {
    if (verdict.judge !== "person") continue;
    const own = given.get(verdict.author) ?? [];
    given.set(verdict.author, own);
    if (verdict.decision === "withdrawn") own.pop();
    else own.push(verdict);
  }
  const persons = [...given.values()].flatMap((own) => own.at(-1) ?? []).sort((a, b) => a.id - b.id);
  return {
    picture: toPicture(row),
    current: last && toVersion(last),
    versions: versions.length,
    rules: rules && toVerdict(rules),
    persons: persons.map(toVerdict),
  };
}

function toPicture({ id, path, offset, length, name, sha256 }: PictureRow): Picture {
  const at = offset === null || length === null ? undefined : { offset, length };
  return { id, name, sha256, source: { path, ...(at && { at }) } };
}

export function toVersion({
  id,
  picture,
  parent,
  kind,
  text,
  author,
  prompt,
  details,
  made_at: madeAt,
}: VersionRow): Version {
  return {
    id,
    picture,
    ...(parent !== null && { parent }),
    kind,
    text,
    author,
    ...(prompt !== null && { prompt }),
    details: JSON.parse(details),
    madeAt,
  };
}

export function toVerdict({ id, version, decision, judge, author, reasons, made_at: madeAt }: VerdictRow): Verdict {
  return { id, version, decision, judge, author, reasons: JSON.parse(reasons), madeAt };
}
