/** The list of the pairs in the current filter, in the sidebar. */
import { useEffect, useState } from "preact/hooks";
import { useStrings } from "../shell/preferences.ts";
import { sidebarOpen } from "../shell/router.ts";
import { useStore } from "../shell/store.ts";
import type { PairSummary } from "./api.ts";
import type { ReviewSession } from "./session.ts";
import { reviewStrings } from "./strings.ts";
import { showHidden } from "./text.ts";
import { api, useSession } from "./use-session.ts";

const pageSize = 100;

export function ReviewSidebar() {
  const session = useSession();
  return session ? <PairList session={session} /> : null;
}

function PairList({ session }: { session: ReviewSession }) {
  const t = useStrings(reviewStrings);
  const selection = useStore(session.selection);
  const progress = useStore(session.progress);
  const view = useStore(session.view);
  const [length, setLength] = useState(pageSize);
  const [{ total, entries }, setList] = useState<{ total: number; entries: readonly PairSummary[] }>({
    total: 0,
    entries: [],
  });
  useEffect(() => setLength(pageSize), [selection]);
  useEffect(() => {
    let stale = false;
    api.list(selection, 0, length).then(
      (list) => {
        if (!stale) setList(list);
      },
      // The page reports connection problems.
      () => {},
    );
    return () => {
      stale = true;
    };
  }, [selection, length, progress]);
  const here = view.kind === "pair" ? view.pair.id : undefined;
  return (
    <nav class="review-list" aria-label={t.list}>
      <ol>
        {entries.map(({ id, name, standing, edited, agreement }) => (
          <li key={id}>
            <button
              type="button"
              aria-current={id === here ? "true" : undefined}
              onClick={() => {
                sidebarOpen.set(false);
                void session.goTo(id);
              }}
            >
              <span class={`mark ${standing}`} role="img" aria-label={t.standing[standing]} />
              <span class="name">{showHidden(name)}</span>
              {agreement === false && <small>{t.filters.disagreement}</small>}
              {edited && agreement !== false && <small>{t.editedMark}</small>}
            </button>
          </li>
        ))}
      </ol>
      {total > entries.length && (
        <button type="button" class="button" onClick={() => setLength((now) => Math.min(now + pageSize, 500))}>
          {t.more}
        </button>
      )}
    </nav>
  );
}
