/** Keys that work anywhere in the chat. They have a modifier, so that they never stand in the way of writing. */
import { useEffect, useRef } from "preact/hooks";
import { go } from "../shell/router.ts";
import type { Chat } from "./chat.ts";
import type { ChatApp } from "./chat-app.ts";

export function useShortcuts(app: ChatApp, chat: Chat | undefined): void {
  const open = useRef(chat);
  open.current = chat;
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.isComposing || document.querySelector("dialog[open]")) return;
      if (event.key === "Escape" && open.current) {
        app.answering.stop(open.current.id);
        return;
      }
      // The place of a key, as Alt changes what it writes on some systems.
      const run = event.altKey && !event.ctrlKey && !event.metaKey ? actions[event.code] : undefined;
      if (!run) return;
      event.preventDefault();
      run(app);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [app]);
}

const actions: Readonly<Record<string, (app: ChatApp) => void>> = {
  KeyN: () => go({ page: "chat" }),
  KeyS: (app) => app.dialog.set("settings"),
  KeyH: (app) => app.dialog.set("help"),
};
