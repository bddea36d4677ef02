/** The review page: keep, edit or drop pairs of an image and its text, one after the other. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { KeyForm } from "../shell/dialog.tsx";
import { Icon } from "../shell/icons.tsx";
import { announce, toast } from "../shell/notifications.tsx";
import { getStrings, useStrings } from "../shell/preferences.ts";
import { PageHeader } from "../shell/shell.tsx";
import { useStore } from "../shell/store.ts";
import { Actions, Editor, EditorActions } from "./actions.tsx";
import { ConflictDialog } from "./conflict-dialog.tsx";
import { FilterSelect, ReviewProgress } from "./filter-bar.tsx";
import { ImageView, PairHeader, TextView } from "./pair-view.tsx";
import type { Notice, ReviewSession, ReviewView } from "./session.ts";
import { reviewStrings } from "./strings.ts";
import { showHidden } from "./text.ts";
import { maxNameLength, reviewer, useRefresh, useSession } from "./use-session.ts";

export function ReviewPage() {
  const t = useStrings(reviewStrings);
  const session = useSession();
  if (session) return <Review key={reviewer.value} session={session} />;
  return (
    <>
      <PageHeader title={t.title} />
      <NameForm />
    </>
  );
}

function NameForm() {
  const t = useStrings(reviewStrings);
  const [name, setName] = useState("");
  const field = useRef<HTMLInputElement>(null);
  // A layout effect: the next key press goes to the field.
  useLayoutEffect(() => field.current?.focus(), []);
  return (
    <form
      class="review-card"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim() !== "") reviewer.set(name.trim());
      }}
    >
      <h2>{t.whoTitle}</h2>
      <p class="note">{t.whoNote}</p>
      <input
        ref={field}
        aria-label={t.name}
        autocomplete="name"
        maxLength={maxNameLength}
        value={name}
        onInput={({ currentTarget }) => setName(currentTarget.value)}
      />
      <div class="row">
        <button type="submit" class="button accent" disabled={name.trim() === ""}>
          {t.begin}
        </button>
      </div>
    </form>
  );
}

function Review({ session }: { session: ReviewSession }) {
  const t = useStrings(reviewStrings);
  const view = useStore(session.view);
  const progress = useStore(session.progress);
  const selection = useStore(session.selection);
  const name = useStore(reviewer) ?? "";
  useRefresh(session);
  useEffect(() => {
    session.notify = (notice) => showNotice(session, notice);
  }, [session]);
  const pair = view.kind === "pair" ? view.pair : undefined;
  useEffect(() => {
    if (pair) announce(`${showHidden(pair.name)}. ${showHidden(pair.versions.at(-1)?.text ?? "")}`);
  }, [pair?.id]);
  return (
    <div class="review">
      <PageHeader title={t.title}>
        <FilterSelect selection={selection} progress={progress} onChange={(selected) => session.select(selected)} />
        <button
          type="button"
          class="reviewer"
          title={t.reviewer(showHidden(name))}
          onClick={() => reviewer.set(undefined)}
        >
          {showHidden(name)}
        </button>
      </PageHeader>
      {progress && <ReviewProgress progress={progress} />}
      <UnsentNote session={session} />
      <Body session={session} view={view} />
      <ConflictDialog session={session} />
    </div>
  );
}

function Body({ session, view }: { session: ReviewSession; view: ReviewView }) {
  const t = useStrings(reviewStrings);
  if (view.kind === "problem" && view.problem === "key") {
    const tryKey = async () => {
      await session.open();
      return session.view.value.kind !== "problem";
    };
    return (
      <div class="review-card">
        <h2>{t.keyRequired}</h2>
        <KeyForm tryKey={tryKey} onDone={() => {}} />
      </div>
    );
  }
  if (view.kind === "pair") return <PairEditor key={view.pair.id} session={session} view={view} />;
  return (
    <>
      <Placeholder session={session} view={view} />
      <Actions session={session} hasPair={false} />
    </>
  );
}

function PairEditor({ session, view }: { session: ReviewSession; view: Extract<ReviewView, { kind: "pair" }> }) {
  const t = useStrings(reviewStrings);
  const { pair, editing } = view;
  const save = () => {
    session.save();
    announce(t.saved);
  };
  const leave = () => session.cancelEdit();
  return (
    <>
      <article class="review-pair">
        <ImageView pair={pair} />
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: keyboard users need to scroll it */}
        <section class="review-text" aria-label={t.text} tabIndex={0}>
          <PairHeader pair={pair} />
          {editing === undefined ? (
            <TextView pair={pair} />
          ) : (
            <Editor draft={editing} onInput={(draft) => session.setDraft(draft)} onSave={save} onCancel={leave} />
          )}
        </section>
      </article>
      {editing === undefined ? (
        <Actions session={session} hasPair />
      ) : (
        <EditorActions draft={editing} onSave={save} onCancel={leave} />
      )}
    </>
  );
}

function Placeholder({ session, view }: { session: ReviewSession; view: Exclude<ReviewView, { kind: "pair" }> }) {
  const t = useStrings(reviewStrings);
  const { filter } = useStore(session.selection);
  const progress = useStore(session.progress);
  if (view.kind === "loading") return <p class="empty-page">{t.loading}</p>;
  if (view.kind === "problem") {
    return (
      <p class="empty-page" role="status">
        {view.problem === "away" ? t.away : t.refused(view.message)}
      </p>
    );
  }
  const none = progress?.counts[filter] === 0;
  const allDone = filter === "unreviewed" && (progress?.reviewed ?? 0) > 0;
  return (
    <div class="empty-page" role="status">
      <p>{allDone ? t.allDone : none ? t.nothingHere : t.endOfList}</p>
      {!none && (
        <button type="button" class="button" onClick={() => session.select(session.selection.value)}>
          {t.fromStart}
        </button>
      )}
    </div>
  );
}

/** Warns about decisions that cannot be sent. */
function UnsentNote({ session }: { session: ReviewSession }) {
  const t = useStrings(reviewStrings);
  const { pending, blockedBy } = useStore(session.queue.state);
  const view = useStore(session.view);
  if (!blockedBy || pending === 0) return null;
  return (
    <div class="unsent" role="status">
      <Icon name={blockedBy === "key" ? "key" : "warning"} />
      <p>
        <b>{t.unsent(pending)}.</b> {blockedBy === "key" ? t.keyRequired : t.unsentNote}
      </p>
      {blockedBy === "key" && view.kind === "pair" && (
        <button type="button" class="button" onClick={() => session.open()}>
          {t.enterKey}
        </button>
      )}
    </div>
  );
}

function showNotice(session: ReviewSession, notice: Notice): void {
  const t = getStrings(reviewStrings);
  if (notice.kind === "discarded") {
    toast(t.discarded, { name: t.restore, run: () => session.restoreDraft(notice.image, notice.text) });
  } else if (notice.kind === "refused") toast(t.refused(notice.message));
  else toast(t[notice.kind]);
}
