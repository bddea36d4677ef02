/** Modal dialogs and drawers, and the form for an API key. Focus starts at the element marked with `data-first`, else at the first button. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { apiKey } from "../backend/http.ts";
import { IconButton } from "./icons.tsx";
import { useStrings } from "./preferences.ts";
import { shellStrings } from "./strings.ts";

interface DialogProps {
  readonly title: string;
  readonly onClose: () => void;
  /** A drawer is attached to the side of the window and as high as it. */
  readonly shape?: "box" | "drawer" | "bare";
  readonly children: ComponentChildren;
}

export function Dialog({ title, onClose, shape = "box", children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const t = useStrings(shellStrings);
  useEffect(() => {
    const element = dialog.current;
    const previousFocus = document.activeElement;
    element?.showModal();
    element?.querySelector<HTMLElement>("[data-first]")?.focus();
    return () => {
      element?.close();
      if (previousFocus instanceof HTMLElement && previousFocus.isConnected) previousFocus.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={`dialog ${shape}`}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        if (dialog.current && isOutside(event, dialog.current)) onClose();
      }}
    >
      <div class="dialog-sheet">
        <header class="dialog-head">
          <h2 id={titleId}>{title}</h2>
          <IconButton icon="close" name={t.close} onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Whether the pointer is on the backdrop. The event's target cannot tell: it is the dialog for both backdrop and scrollbar. */
function isOutside({ clientX, clientY }: PointerEvent, dialog: HTMLElement): boolean {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/**
 * A form for the API key.
 * @param tryKey sends a request with the new key and returns whether the server accepted it
 */
export function KeyForm({ tryKey, onDone }: { tryKey: () => Promise<boolean>; onDone: () => void }) {
  const t = useStrings(shellStrings);
  const [key, setKey] = useState("");
  const [rejected, setRejected] = useState(false);
  return (
    <form
      onSubmit={async (event) => {
        event.preventDefault();
        apiKey.set(key.trim() || undefined);
        if (await tryKey()) onDone();
        else setRejected(true);
      }}
    >
      <p>{t.keyNote}</p>
      <input
        data-first
        type="password"
        autocomplete="off"
        aria-label={t.keyTitle}
        aria-invalid={rejected}
        value={key}
        onInput={(event) => setKey(event.currentTarget.value)}
      />
      {rejected && (
        <p class="error" role="alert">
          {t.keyWrong}
        </p>
      )}
      <div class="row">
        <button type="submit" class="button accent" disabled={key.trim() === ""}>
          {t.keySave}
        </button>
      </div>
    </form>
  );
}
