/** Changing a text: Ctrl+Enter saves, Esc leaves. Its buttons stand in the foot of the page, as those of decisions do. */
import { useLayoutEffect, useRef } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { reviewWords } from "./words.ts";

interface Properties {
  readonly draft: string;
  readonly onInput: (draft: string) => void;
  readonly onSave: () => void;
  readonly onLeave: () => void;
}

export function Editor({ draft, onInput, onSave, onLeave }: Properties) {
  const t = useWords(reviewWords);
  const field = useRef<HTMLTextAreaElement>(null);
  const empty = isEmpty(draft);
  // At once: what is typed next is for the text.
  useLayoutEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(0, 0);
  }, []);
  return (
    <div class="review-editor">
      <textarea
        ref={field}
        aria-label={t.text}
        aria-invalid={empty}
        maxLength={20_000}
        dir="auto"
        value={draft}
        onInput={({ currentTarget }) => onInput(currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") onLeave();
          else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onSave();
          else return;
          event.preventDefault();
        }}
      />
      {empty && (
        <p class="wrong" role="alert">
          {t.emptyText}
        </p>
      )}
    </div>
  );
}

export function EditorActions({ draft, onSave, onLeave }: Omit<Properties, "onInput">) {
  const t = useWords(reviewWords);
  return (
    <div class="review-actions editing" role="toolbar" aria-label={t.edit}>
      <button type="button" class="button" onClick={onLeave}>
        <span>{t.cancel}</span>
        <span class="key" aria-hidden="true">
          Esc
        </span>
      </button>
      <button type="button" class="button accent keep" disabled={isEmpty(draft)} onClick={onSave}>
        <span>{t.save}</span>
        <span class="key" aria-hidden="true">
          Ctrl ↵
        </span>
      </button>
    </div>
  );
}

function isEmpty(draft: string): boolean {
  return draft.trim() === "";
}
