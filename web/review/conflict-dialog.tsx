/** A decision on a text that somebody else has changed: both texts, and what to do. */
import { Dialog } from "../shell/dialog.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { changesBetween } from "./changes.ts";
import type { Conflict } from "./outbox.ts";
import type { ReviewSession } from "./session.ts";
import { ChangedText, PlainText } from "./text-view.tsx";
import { visible } from "./visible.ts";
import { reviewWords } from "./words.ts";

export function ConflictDialog({ session }: { session: ReviewSession }) {
  const [conflict] = useStore(session.conflicts);
  return conflict ? <OneConflict key={conflict.item.id} session={session} conflict={conflict} /> : null;
}

function OneConflict({ session, conflict: { item, now } }: { session: ReviewSession; conflict: Conflict }) {
  const t = useWords(reviewWords);
  const current = now.versions.at(-1);
  if (!current) return null;
  const who = visible(current.author);
  const { kind, text } = item;
  const says = { edit: t.conflictEdit, keep: t.conflictKeep, drop: t.conflictDrop }[kind];
  const theirs = { edit: t.takeTheirs, keep: t.keepTheirs, drop: t.dropTheirs }[kind];
  return (
    // Who closes it has not decided: what they wrote is in the editor again.
    <Dialog
      title={t.conflictTitle(visible(now.name))}
      onClose={() => session.settle(kind === "edit" ? "edit" : "look")}
    >
      <div class="conflict">
        <p>{says(who)}</p>
        <section>
          <h3>{t.theirs(who)}</h3>
          <p dir="auto">
            <ChangedText pieces={changesBetween(text, current.text)} />
          </p>
        </section>
        <section>
          <h3>{kind === "edit" ? t.mine : t.seen}</h3>
          <p dir="auto">
            <PlainText text={text} />
          </p>
        </section>
        <div class="row">
          <button type="button" class="button" onClick={() => session.settle("theirs")}>
            {theirs}
          </button>
          {kind !== "drop" && (
            <button type="button" class="button" onClick={() => session.settle("mine")}>
              {kind === "edit" ? t.takeMine : t.keepMine}
            </button>
          )}
          {/* An Enter too many gives up nothing. */}
          <button
            type="button"
            class="button"
            data-first
            onClick={() => session.settle(kind === "drop" ? "look" : "edit")}
          >
            {kind === "drop" ? t.look : t.editConflict}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
