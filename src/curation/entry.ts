/** Images, the versions of their texts, and what was thought of them. */
import type { FileSource } from "../files/file.ts";

export interface NewImage {
  /** For people: what the data set calls it. */
  readonly name: string;
  readonly source: FileSource;
  /** Of the image's bytes, in hexadecimal; the same image is in a project once. */
  readonly sha256: string;
}

export interface ProjectImage extends NewImage {
  readonly id: number;
}

/** Written by the first model, rewritten by the polishing model, or changed by a person. */
export type VersionKind = "described" | "polished" | "edited";

/** What making a version cost, and how it came about; more may be noted. */
export interface VersionDetails {
  /** The edit that this version takes back: its text is that of before. */
  readonly undoes?: number;
  readonly promptTokens?: number;
  readonly completionTokens?: number;
  /** Milliseconds. */
  readonly duration?: number;
  readonly [more: string]: unknown;
}

export interface NewVersion {
  readonly image: number;
  /** The version that it was made of, which must still be the current one; undefined for the first. */
  readonly parent?: number;
  readonly kind: VersionKind;
  readonly text: string;
  /** The model, or the person. */
  readonly author: string;
  /** What the model was asked. */
  readonly prompt?: string;
  readonly details?: VersionDetails;
}

export interface Version extends NewVersion {
  readonly id: number;
  readonly details: VersionDetails;
  /** Milliseconds since 1970. */
  readonly madeAt: number;
}

/** A rule that a text broke. */
export interface Reason {
  readonly rule: string;
  /** What was found, for people. */
  readonly message: string;
}

export interface NewVerdict {
  readonly version: number;
  /** Who withdraws takes back their last verdict on the image: what they said before it stands again. */
  readonly decision: "keep" | "drop" | "withdrawn";
  readonly judge: "rules" | "person";
  /** The person; of rules, what tells one set of rules from another. */
  readonly author: string;
  readonly reasons?: readonly Reason[];
}

export interface Verdict extends NewVerdict {
  readonly id: number;
  readonly reasons: readonly Reason[];
  readonly madeAt: number;
}

/** An image with all that counts now. */
export interface Entry {
  readonly image: ProjectImage;
  /** The latest version of its text; undefined before it was described. */
  readonly current: Version | undefined;
  /** How many versions there are. */
  readonly versions: number;
  /** The last verdict of rules on the current version. */
  readonly rules: Verdict | undefined;
  /** Each person's last verdict on any version of the text that was not withdrawn; the latest last. */
  readonly persons: readonly Verdict[];
}

/** What a person did to an image's text. */
export interface Action {
  readonly image: number;
  readonly kind: "keep" | "drop" | "edit";
}

/** Somebody else has changed the text meanwhile. */
export class StaleVersionError extends Error {
  override name = "StaleVersionError";
  /** What is current instead. */
  readonly current: Version | undefined;

  constructor(current: Version | undefined) {
    super(`The text was changed meanwhile${current ? ` by ${current.author}` : ""}; look at the new one first`);
    this.current = current;
  }
}

// From rows of the tables to what they say.

export interface ImageRow {
  readonly id: number;
  readonly path: string;
  readonly offset: number | null;
  readonly length: number | null;
  readonly name: string;
  readonly sha256: string;
}

export interface VersionRow {
  readonly id: number;
  readonly image: number;
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

/** @param versions and @param verdicts of the image, oldest first */
export function entryOf(row: ImageRow, versions: readonly VersionRow[], verdicts: readonly VerdictRow[]): Entry {
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
    image: toImage(row),
    current: last && toVersion(last),
    versions: versions.length,
    rules: rules && toVerdict(rules),
    persons: persons.map(toVerdict),
  };
}

function toImage({ id, path, offset, length, name, sha256 }: ImageRow): ProjectImage {
  const range = offset === null || length === null ? undefined : { offset, length };
  return { id, name, sha256, source: { path, range } };
}

export function toVersion({
  id,
  image,
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
    image,
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
