/** The review: images and their texts one after the other, to keep, edit or drop. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { announce } from "../shell/announcer.tsx";
import { Icon } from "../shell/icons.tsx";
import { KeyForm } from "../shell/key-form.tsx";
import { useWords, words } from "../shell/language.ts";
import { PageHead } from "../shell/page-head.tsx";
import { useStore } from "../shell/store.ts";
import { toast } from "../shell/toasts.tsx";
import { Actions } from "./actions.tsx";
import { ConflictDialog } from "./conflict-dialog.tsx";
import { Editor, EditorActions } from "./editor.tsx";
import { FilterChoice } from "./filter-choice.tsx";
import { ImageView, PairHead, TextView } from "./pair-view.tsx";
import { ProgressLine } from "./progress-line.tsx";
import { longestName, reviewer } from "./reviewer.ts";
import type { ReviewSession } from "./session.ts";
import type { Notice, Shown } from "./shown.ts";
import { useRefresh, useSession } from "./use-session.ts";
import { visible } from "./visible.ts";
import { reviewWords } from "./words.ts";

export function ReviewPage() {
  const t = useWords(reviewWords);
  const session = useSession();
  if (session) return <Review key={reviewer.value} session={session} />;
  return (
    <>
      <PageHead title={t.title} />
      <NameForm />
    </>
  );
}

function NameForm() {
  const t = useWords(reviewWords);
  const [name, setName] = useState("");
  const field = useRef<HTMLInputElement>(null);
  // At once: what is typed next is the name.
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
        maxLength={longestName}
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
  const t = useWords(reviewWords);
  const shown = useStore(session.shown);
  const progress = useStore(session.progress);
  const selection = useStore(session.selection);
  const name = useStore(reviewer) ?? "";
  useRefresh(session);
  useEffect(() => {
    session.notify = (notice) => tell(session, notice);
  }, [session]);
  const pair = shown.kind === "pair" ? shown.pair : undefined;
  useEffect(() => {
    if (pair) announce(`${visible(pair.name)}. ${visible(pair.versions.at(-1)?.text ?? "")}`);
  }, [pair?.id]);
  return (
    <div class="review">
      <PageHead title={t.title}>
        <FilterChoice selection={selection} progress={progress} onChoose={(chosen) => session.choose(chosen)} />
        <button
          type="button"
          class="reviewer"
          title={t.reviewer(visible(name))}
          onClick={() => reviewer.set(undefined)}
        >
          {visible(name)}
        </button>
      </PageHead>
      {progress && <ProgressLine progress={progress} />}
      <UnsentNote session={session} />
      <Body session={session} shown={shown} />
      <ConflictDialog session={session} />
    </div>
  );
}

function Body({ session, shown }: { session: ReviewSession; shown: Shown }) {
  const t = useWords(reviewWords);
  if (shown.kind === "problem" && shown.problem === "key") {
    const tryKey = async () => {
      await session.open();
      return session.shown.value.kind !== "problem";
    };
    return (
      <div class="review-card">
        <h2>{t.keyWanted}</h2>
        <KeyForm tryKey={tryKey} onDone={() => {}} />
      </div>
    );
  }
  if (shown.kind === "pair") return <ShownPair key={shown.pair.id} session={session} shown={shown} />;
  return (
    <>
      <Instead session={session} shown={shown} />
      <Actions session={session} hasPair={false} />
    </>
  );
}

function ShownPair({ session, shown }: { session: ReviewSession; shown: Extract<Shown, { kind: "pair" }> }) {
  const t = useWords(reviewWords);
  const { pair, editing } = shown;
  const save = () => {
    session.save();
    announce(t.nowSaved);
  };
  const leave = () => session.leaveEdit();
  return (
    <>
      <article class="review-pair">
        <ImageView pair={pair} />
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: who uses the keyboard can scroll it */}
        <section class="review-text" aria-label={t.text} tabIndex={0}>
          <PairHead pair={pair} />
          {editing === undefined ? (
            <TextView pair={pair} />
          ) : (
            <Editor draft={editing} onInput={(draft) => session.write(draft)} onSave={save} onLeave={leave} />
          )}
        </section>
      </article>
      {editing === undefined ? (
        <Actions session={session} hasPair />
      ) : (
        <EditorActions draft={editing} onSave={save} onLeave={leave} />
      )}
    </>
  );
}

function Instead({ session, shown }: { session: ReviewSession; shown: Exclude<Shown, { kind: "pair" }> }) {
  const t = useWords(reviewWords);
  const { filter } = useStore(session.selection);
  const progress = useStore(session.progress);
  if (shown.kind === "loading") return <p class="empty-page">{t.loading}</p>;
  if (shown.kind === "problem") {
    return (
      <p class="empty-page" role="status">
        {shown.problem === "away" ? t.away : t.refused(shown.message)}
      </p>
    );
  }
  const none = progress?.counts[filter] === 0;
  const allDone = filter === "unreviewed" && (progress?.reviewed ?? 0) > 0;
  return (
    <div class="empty-page" role="status">
      <p>{allDone ? t.allDone : none ? t.nothingHere : t.endOfList}</p>
      {!none && (
        <button type="button" class="button" onClick={() => session.choose(session.selection.value)}>
          {t.fromStart}
        </button>
      )}
    </div>
  );
}

/** What is not with the server yet, once that has a reason. */
function UnsentNote({ session }: { session: ReviewSession }) {
  const t = useWords(reviewWords);
  const { unsent, trouble } = useStore(session.outbox.state);
  const shown = useStore(session.shown);
  if (!trouble || unsent === 0) return null;
  return (
    <div class="unsent" role="status">
      <Icon name={trouble === "key" ? "key" : "warning"} />
      <p>
        <b>{t.unsent(unsent)}.</b> {trouble === "key" ? t.keyWanted : t.unsentKept}
      </p>
      {trouble === "key" && shown.kind === "pair" && (
        <button type="button" class="button" onClick={() => session.open()}>
          {t.enterKey}
        </button>
      )}
    </div>
  );
}

function tell(session: ReviewSession, notice: Notice): void {
  const t = words(reviewWords);
  if (notice.kind === "discarded") {
    toast(t.discarded, { name: t.bringBack, run: () => session.bringBack(notice.image, notice.text) });
  } else if (notice.kind === "refused") toast(t.refused(notice.message));
  else toast(t[notice.kind]);
}
