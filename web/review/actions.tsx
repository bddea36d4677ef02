/** The toolbar of the review with its keyboard shortcuts, and the text editor. */
import { useLayoutEffect, useRef } from "preact/hooks";
import { Icon, type IconName } from "../shell/icons.tsx";
import { useStrings } from "../shell/preferences.ts";
import type { ReviewSession } from "./session.ts";
import { reviewStrings } from "./strings.ts";

export function Actions({ session, hasPair }: { session: ReviewSession; hasPair: boolean }) {
  const t = useStrings(reviewStrings);
  const keep = () => void session.decide("keep");
  const drop = () => void session.decide("drop");
  const edit = () => session.edit();
  const undo = () => session.undo();
  const previous = () => void session.previous();
  const next = () => void session.next();
  const pairKeys: Keys = hasPair ? { k: keep, d: drop, e: edit, arrowright: next } : {};
  useKeys({ ...pairKeys, u: undo, arrowleft: previous });
  return (
    <div class="review-actions" role="toolbar" aria-label={t.actions}>
      <Action class="previous" icon="back" name={t.previous} shortcut="←" onClick={previous} />
      <Action class="undo" icon="undo" name={t.undo} shortcut="U" onClick={undo} />
      <Action class="drop" icon="trash" name={t.drop} shortcut="D" onClick={drop} disabled={!hasPair} />
      <Action class="edit" icon="edit" name={t.edit} shortcut="E" onClick={edit} disabled={!hasPair} />
      <Action class="keep accent" icon="check" name={t.keep} shortcut="K" onClick={keep} disabled={!hasPair} />
      <Action class="next" icon="forward" name={t.next} shortcut="→" onClick={next} disabled={!hasPair} />
    </div>
  );
}

interface ActionProps {
  readonly class: string;
  readonly icon: IconName;
  readonly name: string;
  readonly shortcut: string;
  readonly onClick: () => void;
  readonly disabled?: boolean;
}

function Action({ icon, name, shortcut, onClick, disabled, ...rest }: ActionProps) {
  const keyName = { "←": "ArrowLeft", "→": "ArrowRight" }[shortcut] ?? shortcut;
  return (
    <button
      type="button"
      class={`button ${rest.class}`}
      aria-keyshortcuts={keyName}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
      <span>{name}</span>
      <span class="key" aria-hidden="true">
        {shortcut}
      </span>
    </button>
  );
}

interface EditorProps {
  readonly draft: string;
  readonly onInput: (draft: string) => void;
  readonly onSave: () => void;
  readonly onCancel: () => void;
}

/** The text field. Ctrl+Enter saves, Escape cancels. */
export function Editor({ draft, onInput, onSave, onCancel }: EditorProps) {
  const t = useStrings(reviewStrings);
  const field = useRef<HTMLTextAreaElement>(null);
  const empty = isEmpty(draft);
  // A layout effect: the next key press goes to the field.
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
          if (event.key === "Escape") onCancel();
          else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onSave();
          else return;
          event.preventDefault();
        }}
      />
      {empty && (
        <p class="error" role="alert">
          {t.emptyText}
        </p>
      )}
    </div>
  );
}

export function EditorActions({ draft, onSave, onCancel }: Omit<EditorProps, "onInput">) {
  const t = useStrings(reviewStrings);
  return (
    <div class="review-actions editing" role="toolbar" aria-label={t.edit}>
      <button type="button" class="button" onClick={onCancel}>
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

/** Actions by `KeyboardEvent.key` in lower case. */
type Keys = Readonly<Record<string, () => void>>;

function useKeys(keys: Keys): void {
  const latest = useRef(keys);
  latest.current = keys;
  // A layout effect: active as soon as the buttons are visible.
  useLayoutEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const { key, ctrlKey, altKey, metaKey, isComposing, repeat, target } = event;
      // `repeat`: holding a key down must not decide on several pairs.
      if (ctrlKey || altKey || metaKey || isComposing || repeat) return;
      if (document.querySelector("dialog[open]") || usesKey(target, key)) return;
      const act = latest.current[key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

/** Whether the focused element handles the key itself: text fields all of them, radio buttons the arrows. */
function usesKey(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof Element)) return false;
  const choice = target.closest("input[type=radio]");
  return choice ? key.startsWith("Arrow") : target.closest("input, textarea, select, [contenteditable]") !== null;
}
