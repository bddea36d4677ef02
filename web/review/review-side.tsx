/** The list of the pairs of the chosen filter, at the side. */
import { useEffect, useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { sideOpen } from "../shell/side.ts";
import { useStore } from "../shell/store.ts";
import type { PairSummary } from "./api.ts";
import type { ReviewSession } from "./session.ts";
import { api, useSession } from "./use-session.ts";
import { visible } from "./visible.ts";
import { reviewWords } from "./words.ts";

const page = 100;

export function ReviewSide() {
  const session = useSession();
  return session ? <PairList session={session} /> : null;
}

function PairList({ session }: { session: ReviewSession }) {
  const t = useWords(reviewWords);
  const selection = useStore(session.selection);
  const progress = useStore(session.progress);
  const shown = useStore(session.shown);
  const [length, setLength] = useState(page);
  const [{ total, entries }, setList] = useState<{ total: number; entries: readonly PairSummary[] }>({
    total: 0,
    entries: [],
  });
  useEffect(() => setLength(page), [selection]);
  useEffect(() => {
    let late = false;
    api.list(selection, 0, length).then(
      (list) => {
        if (!late) setList(list);
      },
      // The page says that nobody answers.
      () => {},
    );
    return () => {
      late = true;
    };
  }, [selection, length, progress]);
  const here = shown.kind === "pair" ? shown.pair.id : undefined;
  return (
    <nav class="review-list" aria-label={t.list}>
      <ol>
        {entries.map(({ id, name, standing, edited, agreement }) => (
          <li key={id}>
            <button
              type="button"
              aria-current={id === here ? "true" : undefined}
              onClick={() => {
                sideOpen.set(false);
                void session.go(id);
              }}
            >
              <span class={`mark ${standing}`} role="img" aria-label={t.standing[standing]} />
              <span class="name">{visible(name)}</span>
              {agreement === false && <small>{t.filters.disagreement}</small>}
              {edited && agreement !== false && <small>{t.editedMark}</small>}
            </button>
          </li>
        ))}
      </ol>
      {total > entries.length && (
        <button type="button" class="button" onClick={() => setLength((now) => Math.min(now + page, 500))}>
          {t.more}
        </button>
      )}
    </nav>
  );
}
