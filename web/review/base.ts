/** With which earlier text a text is compared unless somebody chooses another. */
import type { Version } from "../../src/curation/entry.ts";

/**
 * The one that the current text was made of; where an edit was undone, that which was compared with before it.
 * @param versions oldest first
 */
export function baseOf(versions: readonly Version[]): Version | undefined {
  const byId = new Map(versions.map((version) => [version.id, version]));
  const parentOf = (version: Version | undefined) => byId.get(version?.parent ?? Number.NaN);
  let version = versions.at(-1);
  // What put a text back is that text again: the parent of the edit that was undone.
  while (version?.details.undoes !== undefined) version = parentOf(byId.get(version.details.undoes));
  return parentOf(version);
}
