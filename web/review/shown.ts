/** What the review shows, and what a reviewer should hear of beside it. */
import type { VersionKind } from "../../src/curation/entry.ts";
import type { Pair } from "./api.ts";
import type { EditItem } from "./outbox.ts";

export type Shown =
  | { readonly kind: "loading" }
  /** `editing`: what stands in the editor, if it is open. */
  | { readonly kind: "pair"; readonly pair: Pair; readonly editing?: string }
  /** Nothing more is in the selection. */
  | { readonly kind: "end" }
  | { readonly kind: "problem"; readonly problem: "away" | "key" | "refused"; readonly message: string };

export type Notice =
  | { readonly kind: "undone" | "nothing" | "overtaken" }
  | { readonly kind: "refused"; readonly message: string }
  | { readonly kind: "discarded"; readonly image: number; readonly text: string };

export function pairOf(shown: Shown): Pair | undefined {
  return shown.kind === "pair" ? shown.pair : undefined;
}

/** What was written in the editor and is not saved yet. */
export function unsavedOf(shown: Shown): string | undefined {
  if (shown.kind !== "pair" || shown.editing === undefined) return undefined;
  return shown.editing === shown.pair.versions.at(-1)?.text ? undefined : shown.editing;
}

/** The pair as it will be when the edit has arrived. */
export function withEdit(pair: Pair, { id, version: parent, text, reviewer: author, image }: EditItem): Pair {
  const kind: VersionKind = "edited";
  return {
    ...pair,
    versions: [...pair.versions, { id, image, parent, kind, text, author, details: {}, madeAt: Date.now() }],
  };
}
