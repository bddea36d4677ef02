/** How far the model has been loaded into this browser. */
import { useRef } from "preact/hooks";
import type { LoadProgress } from "../backend/backend.ts";
import { useWords } from "../shell/language.ts";
import { chatWords } from "./words.ts";

export function LoadingNote({ received, total }: LoadProgress) {
  const t = useWords(chatWords);
  const begun = useRef({ at: performance.now(), received });
  const perSecond = (received - begun.current.received) / ((performance.now() - begun.current.at) / 1000);
  const left = perSecond > 0 ? Math.ceil((total - received) / perSecond) : undefined;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e6 ? 1 : 0);
  return (
    <div class="loading-note">
      {received < total ? (
        <>
          <progress value={received} max={total} aria-label={t.loadingModel} />
          {t.loadedOf(megabytes(received), megabytes(total), left)}
        </>
      ) : (
        <span role="status">{t.startingModel}</span>
      )}
    </div>
  );
}
