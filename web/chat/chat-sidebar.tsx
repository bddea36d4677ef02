/** The list of chats in the sidebar. */
import { memo } from "preact/compat";
import { useRef, useState } from "preact/hooks";
import { Dialog } from "../shell/dialog.tsx";
import { Icon } from "../shell/icons.tsx";
import { Menu } from "../shell/menu.tsx";
import { useStrings } from "../shell/preferences.ts";
import { route, routeHash } from "../shell/router.ts";
import { useStore } from "../shell/store.ts";
import { type Chat, chatTitle, rename } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { exportAll, exportChat, importChats } from "./export.ts";
import { chatStrings } from "./strings.ts";

export function ChatSidebar() {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const chats = useStore(app.library.chats);
  const [clearing, setClearing] = useState(false);
  const file = useRef<HTMLInputElement>(null);
  return (
    <nav class="chats" aria-label={t.chats}>
      <a class="button new-chat" href={routeHash({ page: "chat" })}>
        <Icon name="plus" />
        {t.newChat}
      </a>
      <div class="chats-head">
        <h2>{t.chats}</h2>
        <Menu
          icon="more"
          name={t.options(t.chats)}
          items={[
            { icon: "upload", name: t.import, run: () => file.current?.click() },
            ...(chats.length > 0
              ? ([
                  { icon: "download", name: t.exportAll, run: () => exportAll(app) },
                  { icon: "trash", name: t.clear, run: () => setClearing(true), danger: true },
                ] as const)
              : []),
          ]}
        />
      </div>
      <input
        ref={file}
        type="file"
        accept=".json,application/json"
        hidden
        onChange={({ currentTarget }) => {
          const [chosen] = currentTarget.files ?? [];
          if (chosen) importChats(app, chosen);
          currentTarget.value = "";
        }}
      />
      {chats.length === 0 && <p class="note">{t.noChats}</p>}
      <ul>
        {chats.map((chat) => (
          <ChatItem key={chat.id} chat={chat} />
        ))}
      </ul>
      {clearing && (
        <Dialog title={t.clear} onClose={() => setClearing(false)}>
          <p>{t.clearQuestion}</p>
          <div class="row">
            <button
              type="button"
              class="button danger"
              onClick={() => {
                setClearing(false);
                app.clear();
              }}
            >
              {t.clear}
            </button>
            <button type="button" class="button" onClick={() => setClearing(false)}>
              {t.cancel}
            </button>
          </div>
        </Dialog>
      )}
    </nav>
  );
}

/** Memoized: while an answer is generated, the list changes with every token. */
const ChatItem = memo(({ chat }: { chat: Chat }) => {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const currentRoute = useStore(route);
  const [renaming, setRenaming] = useState(false);
  const title = chatTitle(chat) ?? t.untitled;
  if (renaming) {
    const done = (text: string | undefined) => {
      setRenaming(false);
      if (text !== undefined) app.library.update(chat.id, (now) => rename(now, text));
    };
    return (
      <li>
        <input
          class="rename"
          aria-label={t.title}
          defaultValue={title}
          ref={(field) => field?.focus()}
          onFocus={(event) => event.currentTarget.select()}
          onBlur={(event) => done(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.isComposing) return;
            if (event.key === "Enter") done(event.currentTarget.value);
            if (event.key !== "Escape") return;
            // Escape closes the field, not the drawer around it.
            event.preventDefault();
            event.stopPropagation();
            done(undefined);
          }}
        />
      </li>
    );
  }
  const current = currentRoute.page === "chat" && currentRoute.id === chat.id;
  return (
    <li class={current ? "current" : ""}>
      <a href={routeHash({ page: "chat", id: chat.id })} aria-current={current ? "page" : undefined} title={title}>
        {title}
      </a>
      <Menu
        icon="more"
        name={t.options(title)}
        items={[
          { icon: "edit", name: t.rename, run: () => setRenaming(true) },
          { icon: "download", name: t.exportMarkdown, run: () => exportChat(app, chat, "md") },
          { icon: "download", name: t.exportJson, run: () => exportChat(app, chat, "json") },
          { icon: "trash", name: t.remove, run: () => app.remove(chat), danger: true },
        ]}
      />
    </li>
  );
});
