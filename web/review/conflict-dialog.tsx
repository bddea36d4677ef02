/** Resolves a conflict with another reviewer: shows both texts and the choices. */
import { Dialog } from "../shell/dialog.tsx";
import { useStrings } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import { ChangedText, PlainText } from "./pair-view.tsx";
import type { ReviewSession } from "./session.ts";
import { reviewStrings } from "./strings.ts";
import type { Conflict } from "./sync-queue.ts";
import { diffWords, showHidden } from "./text.ts";

export function ConflictDialog({ session }: { session: ReviewSession }) {
  const [conflict] = useStore(session.conflicts);
  return conflict ? <OneConflict key={conflict.item.id} session={session} conflict={conflict} /> : null;
}

function OneConflict({ session, conflict: { item, now } }: { session: ReviewSession; conflict: Conflict }) {
  const t = useStrings(reviewStrings);
  const current = now.versions.at(-1);
  if (!current) return null;
  const who = showHidden(current.author);
  const { kind, text } = item;
  const says = { edit: t.conflictEdit, keep: t.conflictKeep, drop: t.conflictDrop }[kind];
  const theirs = { edit: t.takeTheirs, keep: t.keepTheirs, drop: t.dropTheirs }[kind];
  return (
    // Closing the dialog keeps an edit in the editor.
    <Dialog
      title={t.conflictTitle(showHidden(now.name))}
      onClose={() => session.resolveConflict(kind === "edit" ? "edit" : "look")}
    >
      <div class="conflict">
        <p>{says(who)}</p>
        <section>
          <h3>{t.theirs(who)}</h3>
          <p dir="auto">
            <ChangedText pieces={diffWords(text, current.text)} />
          </p>
        </section>
        <section>
          <h3>{kind === "edit" ? t.mine : t.seen}</h3>
          <p dir="auto">
            <PlainText text={text} />
          </p>
        </section>
        <div class="row">
          <button type="button" class="button" onClick={() => session.resolveConflict("theirs")}>
            {theirs}
          </button>
          {kind !== "drop" && (
            <button type="button" class="button" onClick={() => session.resolveConflict("mine")}>
              {kind === "edit" ? t.takeMine : t.keepMine}
            </button>
          )}
          {/* Focused first: pressing Enter by accident loses nothing. */}
          <button
            type="button"
            class="button"
            data-first
            onClick={() => session.resolveConflict(kind === "drop" ? "look" : "edit")}
          >
            {kind === "drop" ? t.look : t.editConflict}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
