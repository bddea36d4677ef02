/** Events of the whole page: files dropped or pasted anywhere, and keyboard shortcuts. */
import { useEffect, useRef, useState } from "preact/hooks";
import { navigate } from "../shell/router.ts";
import type { Chat } from "./chat.ts";
import type { ChatApp } from "./chat-app.ts";
import { transferredFiles } from "./images.ts";

/** Calls `onFiles` with dropped and pasted files. @returns whether files are being dragged over the page */
export function useFileDrop(onFiles: (files: readonly File[]) => void): boolean {
  const [dragging, setDragging] = useState(false);
  const latest = useRef(onFiles);
  latest.current = onFiles;
  useEffect(() => {
    // A child is entered before its parent is left, so count both.
    let depth = 0;
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const listeners = {
      dragenter(event: DragEvent) {
        if (!hasFiles(event)) return;
        event.preventDefault();
        depth++;
        setDragging(true);
      },
      dragover(event: DragEvent) {
        if (hasFiles(event)) event.preventDefault();
      },
      dragleave(event: DragEvent) {
        if (!hasFiles(event)) return;
        depth = Math.max(0, depth - 1);
        if (depth === 0) setDragging(false);
      },
      drop(event: DragEvent) {
        if (!hasFiles(event)) return;
        event.preventDefault();
        depth = 0;
        setDragging(false);
        latest.current(transferredFiles(event.dataTransfer));
      },
      paste(event: ClipboardEvent) {
        const files = transferredFiles(event.clipboardData);
        if (files.length === 0 || hasText(event.clipboardData, files)) return;
        event.preventDefault();
        latest.current(files);
      },
    };
    const entries = Object.entries(listeners) as [string, (event: Event) => void][];
    for (const [name, listener] of entries) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of entries) removeEventListener(name, listener);
    };
  }, []);
  return dragging;
}

/** Whether text should be pasted instead: word processors add an image of the text, while file managers add the file names as text. */
function hasText(data: DataTransfer | null, files: readonly File[]): boolean {
  const text = data?.getData("text/plain") ?? "";
  return text !== "" && !files.some(({ name }) => text.includes(name));
}

/** Keyboard shortcuts of the chat. They use Alt, so that they never interfere with typing. */
export function useShortcuts(app: ChatApp, chat: Chat | undefined): void {
  const current = useRef(chat);
  current.current = chat;
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.isComposing || document.querySelector("dialog[open]")) return;
      if (event.key === "Escape" && current.current) {
        app.generations.stop(current.current.id);
        return;
      }
      // `code`, not `key`: on some systems Alt changes the character.
      const run = event.altKey && !event.ctrlKey && !event.metaKey ? shortcuts[event.code] : undefined;
      if (!run) return;
      event.preventDefault();
      run(app);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [app]);
}

const shortcuts: Readonly<Record<string, (app: ChatApp) => void>> = {
  KeyN: () => navigate({ page: "chat" }),
  KeyS: (app) => app.dialog.set("settings"),
  KeyH: (app) => app.dialog.set("help"),
};
