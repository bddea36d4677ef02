/** Texts of the review: a word diff, visible codes for invisible characters, and the version to compare with. */
import { diffArrays } from "diff";
import type { Version } from "../../src/curation/entry.ts";

export interface Piece {
  readonly kind: "same" | "removed" | "added";
  readonly text: string;
}

/** After this time, a text is shown as replaced as a whole. */
const diffTimeoutMs = 200;

const unspaced = String.raw`\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}`;
const words = new RegExp(String.raw`[${unspaced}]|(?:(?![${unspaced}])[\p{L}\p{N}\p{M}])+|\s+|.`, "gsu");

/** The difference of two texts by word. Joining the same and removed pieces gives `before`, the same and added ones `after`. */
export function diffWords(before: string, after: string): readonly Piece[] {
  const found = diffArrays([...splitWords(before)], [...splitWords(after)], { timeout: diffTimeoutMs });
  if (!found) return mergePieces([piece("removed", before), piece("added", after)]);
  return mergePieces(
    found.map(({ added, removed, value }) => piece(added ? "added" : removed ? "removed" : "same", value.join(""))),
  );
}

export function hasChanges(pieces: readonly Piece[]): boolean {
  return pieces.some(({ kind }) => kind !== "same");
}

/** Splits a text into words, white space, and other characters; scripts without spaces are split into characters. */
function splitWords(text: string): readonly string[] {
  return text.match(words) ?? [];
}

/** Merges adjacent changes into one removed and one added piece, also across white space between them. */
function mergePieces(pieces: readonly Piece[]): Piece[] {
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

/** Control characters, bidirectional marks, zero-width spaces, non-characters, and lone surrogates. */
const hidden = /[\p{Cc}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]/u;

export interface TextSpan {
  readonly text: string;
  /** Whether it is the code of an invisible character. */
  readonly hidden: boolean;
}

/** Splits a text so that each invisible character is a span of its own, written like `U+202E`. */
export function splitHidden(text: string): TextSpan[] {
  const spans: TextSpan[] = [];
  let plain = "";
  const flush = () => {
    if (plain !== "") spans.push({ text: plain, hidden: false });
    plain = "";
  };
  for (const character of text) {
    if (!isHidden(character)) {
      plain += character;
      continue;
    }
    flush();
    spans.push({ text: codePoint(character), hidden: true });
  }
  flush();
  return spans;
}

/** A text with its invisible characters written like `[U+202E]`, for labels and titles. */
export function showHidden(text: string): string {
  return splitHidden(text)
    .map((span) => (span.hidden ? `[${span.text}]` : span.text))
    .join("");
}

function isHidden(character: string): boolean {
  return character !== "\n" && character !== "\t" && hidden.test(character);
}

function codePoint(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/**
 * The version to compare the current text with by default: the one it was made from. After an undo, the one that the restored text was
 * made from.
 * @param versions oldest first
 */
export function comparisonBase(versions: readonly Version[]): Version | undefined {
  const byId = new Map(versions.map((version) => [version.id, version]));
  const getParent = (version: Version | undefined) => byId.get(version?.parent ?? Number.NaN);
  let version = versions.at(-1);
  // An undo restores the parent of the undone edit.
  while (version?.details.undoes !== undefined) version = getParent(byId.get(version.details.undoes));
  return getParent(version);
}
