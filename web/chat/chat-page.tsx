/** Talking about images: the messages of a chat, and the composer below. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { IconButton } from "../shell/icon-button.tsx";
import { useWords } from "../shell/language.ts";
import { Menu } from "../shell/menu.tsx";
import { PageHead } from "../shell/page-head.tsx";
import { useStore } from "../shell/store.ts";
import { Answer } from "./answer.tsx";
import { type Chat, type ImageRef, imagesOf, titleOf } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { Composer } from "./composer.tsx";
import { ConnectionNote } from "./connection-note.tsx";
import { ChatDialogs } from "./dialogs.tsx";
import { useDrops } from "./drops.ts";
import { EmptyState } from "./empty-state.tsx";
import { exportChat } from "./export-actions.ts";
import { GenerationRequest } from "./question.tsx";
import { useShortcuts } from "./shortcuts.ts";
import { Viewer } from "./viewer.tsx";
import { chatWords } from "./words.ts";

export function ChatPage({ chatId }: { chatId: string | undefined }) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const chats = useStore(app.library.chats);
  const chat = chatId === undefined ? undefined : chats.find(({ id }) => id === chatId);
  const progress = useStore(app.answering.progress).get(chatId ?? "");
  const [editing, setEditing] = useState<string>();
  const dropping = useDrops((files) => app.draft.add(files.map((blob) => ({ blob, name: blob.name }))));
  useShortcuts(app, chat);
  useEffect(() => setEditing(undefined), [chatId]);
  const editLast = () => setEditing(chat?.messages.findLast(({ role }) => role === "user")?.id);
  const title = chat ? (titleOf(chat) ?? t.untitled) : t.newChat;
  return (
    <div class={dropping ? "chat-page dropping" : "chat-page"}>
      <PageHead title={title}>
        <ModelName />
        {chat && (
          <Menu
            icon="download"
            name={t.exportChat}
            items={[
              { icon: "download", name: t.exportMarkdown, run: () => exportChat(app, chat, "md") },
              { icon: "download", name: t.exportJson, run: () => exportChat(app, chat, "json") },
            ]}
          />
        )}
        <IconButton icon="sliders" name={t.settings} onClick={() => app.dialog.set("settings")} />
        <IconButton icon="help" name={t.help} onClick={() => app.dialog.set("help")} />
      </PageHead>
      {chat ? (
        <Messages key={chat.id} chat={chat} editing={editing} onEdit={setEditing} />
      ) : (
        <div class="messages">{chatId === undefined ? <EmptyState /> : <p class="empty-page">{t.chatGone}</p>}</div>
      )}
      <div class="foot">
        <ConnectionNote />
        <Composer chat={chat} busy={progress !== undefined} onEditLast={editLast} />
      </div>
      {dropping && (
        <div class="drop-sheet" aria-hidden="true">
          {t.dropHere}
        </div>
      )}
      <ChatDialogs />
    </div>
  );
}

function ModelName() {
  const connection = useStore(useChatApp().connection);
  if (connection.kind !== "ready") return <span class="model-name" />;
  const { name, runsOn } = connection.model;
  return <span class="model-name">{runsOn ? `${name} · ${runsOn}` : name}</span>;
}

interface MessagesProperties {
  readonly chat: Chat;
  readonly editing: string | undefined;
  readonly onEdit: (id: string | undefined) => void;
}

function Messages({ chat, editing, onEdit }: MessagesProperties) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const progress = useStore(app.answering.progress).get(chat.id);
  const [enlarged, setEnlarged] = useState<ImageRef>();
  const list = useFollowing(chat);
  const current = useRef(chat);
  current.current = chat;
  const save = useCallback(
    (id: string, text: string) => {
      onEdit(undefined);
      app.edit(current.current, id, text);
    },
    [app, onEdit],
  );
  const again = useCallback(() => app.again(current.current), [app]);
  const goOn = useCallback(() => app.goOn(current.current), [app]);
  const enterKey = useCallback(() => app.dialog.set("key"), [app]);
  const images = imagesOf(chat);
  let number = 1;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: who uses the keyboard can scroll it
    <div class="messages" ref={list} role="log" aria-live="off" aria-label={t.conversation} tabIndex={0}>
      <div class="column">
        {chat.messages.map((message, i) => {
          const last = i === chat.messages.length - 1;
          if (message.role === "assistant") {
            return (
              <Answer
                key={message.id}
                message={message}
                last={last}
                progress={last ? progress : undefined}
                onAgain={again}
                onGoOn={goOn}
                onEnterKey={enterKey}
              />
            );
          }
          const firstNumber = number;
          number += message.images.length;
          return (
            <GenerationRequest
              key={message.id}
              message={message}
              firstNumber={firstNumber}
              editing={message.id === editing}
              onEdit={onEdit}
              onSave={save}
              onEnlarge={setEnlarged}
            />
          );
        })}
      </div>
      {enlarged && <Viewer images={images} first={enlarged.id} onClose={() => setEnlarged(undefined)} />}
    </div>
  );
}

/** Keeps the end of a list in view while it grows, unless the reader has scrolled away from it. */
function useFollowing(chat: Chat) {
  const list = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const element = list.current;
    if (!element) return;
    const look = () => {
      atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 48;
    };
    const follow = () => {
      if (atEnd.current) element.scrollTop = element.scrollHeight;
    };
    element.addEventListener("scroll", look, { passive: true });
    // Images become as high as they are only when they are there.
    const watch = new ResizeObserver(follow);
    if (element.firstElementChild) watch.observe(element.firstElementChild);
    return () => {
      watch.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);
  const asked = chat.messages.length;
  useEffect(() => {
    atEnd.current = true;
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [asked]);
  return list;
}
