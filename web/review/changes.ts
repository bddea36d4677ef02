/** What was changed in a text, word by word. */
import { diffArrays } from "diff";

export interface Piece {
  readonly kind: "same" | "removed" | "added";
  readonly text: string;
}

/** After this time two texts that have little in common are shown as wholly replaced. */
const patience = 200;

const unspaced = String.raw`\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}`;
const words = new RegExp(String.raw`[${unspaced}]|(?:(?![${unspaced}])[\p{L}\p{N}\p{M}])+|\s+|.`, "gsu");

/** The pieces of both texts: those that are the same or removed make up the one before, the same and added ones the one after. */
export function changesBetween(before: string, after: string): readonly Piece[] {
  const found = diffArrays([...wordsOf(before)], [...wordsOf(after)], { timeout: patience });
  if (!found) return joined([piece("removed", before), piece("added", after)]);
  return joined(
    found.map(({ added, removed, value }) => piece(added ? "added" : removed ? "removed" : "same", value.join(""))),
  );
}

export function hasChanges(pieces: readonly Piece[]): boolean {
  return pieces.some(({ kind }) => kind !== "same");
}

/** Words, what stands between them, and each sign; where no spaces are put between words, each letter. */
function wordsOf(text: string): readonly string[] {
  return text.match(words) ?? [];
}

/** What changed in a row is one removed and one added piece: also across spaces that happen to be in both. */
function joined(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed !== "") result.push(piece("removed", removed));
    if (added !== "") result.push(piece("added", added));
    removed = "";
    added = "";
  };
  for (const [i, { kind, text }] of pieces.entries()) {
    const next = pieces[i + 1];
    const between = kind === "same" && text.trim() === "" && removed + added !== "" && next !== undefined;
    if (kind === "removed" || between) removed += text;
    if (kind === "added" || between) added += text;
    if (kind !== "same" || between) continue;
    flush();
    result.push(piece("same", text));
  }
  flush();
  return result;
}

function piece(kind: Piece["kind"], text: string): Piece {
  return { kind, text };
}
