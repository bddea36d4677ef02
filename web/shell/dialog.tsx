/** A dialog before everything else. The browser keeps the focus inside; it begins at what is marked with `data-first`, or else at the first button. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { IconButton } from "./icon-button.tsx";
import { useWords } from "./language.ts";
import { shellWords } from "./words.ts";

interface Properties {
  readonly title: string;
  readonly onClose: () => void;
  /** A drawer comes from the side and is as high as the window. */
  readonly shape?: "box" | "drawer" | "bare";
  readonly children: ComponentChildren;
}

export function Dialog({ title, onClose, shape = "box", children }: Properties) {
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const t = useWords(shellWords);
  useEffect(() => {
    const element = dialog.current;
    const before = document.activeElement;
    element?.showModal();
    element?.querySelector<HTMLElement>("[data-first]")?.focus();
    return () => {
      element?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
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
        if (dialog.current && isBeside(event, dialog.current)) onClose();
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

/** Whether a pointer is on the backdrop. (Not by the target: that is the dialog for its scrollbar, too.) */
function isBeside({ clientX, clientY }: PointerEvent, dialog: HTMLElement): boolean {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
