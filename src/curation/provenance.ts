/** Where a pair of an exported data set comes from: a line of `provenance.jsonl`. */
import type { Entry, Picture, Version } from "./entry.ts";

interface Origin extends Pick<Entry, "persons" | "rules"> {
  readonly picture: Picture;
  /** All versions of the text, oldest first; the last one is exported. */
  readonly versions: readonly Version[];
  /** SHA-256 of the exported file. */
  readonly image: string;
}

/** Versions are counted from 1. Where the picture lay is left out: it says more of the machine than of the data. */
export function provenanceOf({ picture, versions, persons, rules, image }: Origin) {
  const numberOf = new Map(versions.map(({ id }, i) => [id, i + 1]));
  return {
    image_id: String(picture.id),
    name: picture.name,
    sha256: picture.sha256,
    image_sha256: image,
    versions: versions.map(({ kind, author, prompt, text, details, madeAt }) => ({
      kind,
      author,
      prompt,
      text,
      // An edit that its author took back: the text is that of before, and none of theirs.
      undoes: details.undoes === undefined ? undefined : numberOf.get(details.undoes),
      at: date(madeAt),
    })),
    rules: rules && { rules: rules.author, decision: rules.decision, reasons: rules.reasons, at: date(rules.madeAt) },
    reviews: persons.map(({ author, decision, version, madeAt }) => ({
      author,
      decision,
      version: numberOf.get(version),
      at: date(madeAt),
    })),
  };
}

function date(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
