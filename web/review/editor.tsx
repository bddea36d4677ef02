/** Changing a text: Ctrl+Enter saves, Esc leaves. */
import { useEffect, useRef, useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { reviewWords } from "./words.ts";

interface Properties {
  readonly text: string;
  readonly onSave: (text: string) => void;
  readonly onLeave: (draft: string) => void;
}

export function Editor({ text, onSave, onLeave }: Properties) {
  const t = useWords(reviewWords);
  const [draft, setDraft] = useState(text);
  const field = useRef<HTMLTextAreaElement>(null);
  const empty = draft.trim() === "";
  useEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(0, 0);
  }, []);
  const save = () => {
    if (!empty) onSave(draft);
  };
  return (
    <form
      class="review-editor"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <textarea
        ref={field}
        aria-label={t.text}
        aria-invalid={empty}
        maxLength={20_000}
        dir="auto"
        value={draft}
        onInput={({ currentTarget }) => setDraft(currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") onLeave(draft);
          else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
          else return;
          event.preventDefault();
        }}
      />
      {empty && (
        <p class="wrong" role="alert">
          {t.emptyText}
        </p>
      )}
      <div class="review-actions editing">
        <button type="button" class="button" aria-label={t.cancel} onClick={() => onLeave(draft)}>
          <span>{t.cancel}</span>
          <kbd>Esc</kbd>
        </button>
        <button type="submit" class="button accent" aria-label={t.save} disabled={empty}>
          <span>{t.save}</span>
          <kbd>Ctrl ↵</kbd>
        </button>
      </div>
    </form>
  );
}
