/** The chat page: messages or an introduction, connection status, and the composer. */
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { LoadProgress } from "../backend/backend.ts";
import { Icon, IconButton } from "../shell/icons.tsx";
import { Menu } from "../shell/menu.tsx";
import { useStrings } from "../shell/preferences.ts";
import { PageHeader } from "../shell/shell.tsx";
import { useStore } from "../shell/store.ts";
import { chatTitle } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { Composer, ImageInput } from "./composer.tsx";
import { ChatDialogs } from "./dialogs.tsx";
import { exportChat } from "./export.ts";
import { type Example, examples } from "./images.ts";
import { Messages } from "./messages.tsx";
import { useFileDrop, useShortcuts } from "./page-events.ts";
import { chatStrings } from "./strings.ts";

export function ChatPage({ chatId }: { chatId: string | undefined }) {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const chats = useStore(app.library.chats);
  const chat = chatId === undefined ? undefined : chats.find(({ id }) => id === chatId);
  const progress = useStore(app.generations.progress).get(chatId ?? "");
  const [editing, setEditing] = useState<string>();
  const dropping = useFileDrop((files) => app.draft.add(files.map((blob) => ({ blob, name: blob.name }))));
  useShortcuts(app, chat);
  useEffect(() => setEditing(undefined), [chatId]);
  const editLast = () => setEditing(chat?.messages.findLast(({ role }) => role === "user")?.id);
  const title = chat ? (chatTitle(chat) ?? t.untitled) : t.newChat;
  return (
    <div class={dropping ? "chat-page dropping" : "chat-page"}>
      <PageHeader title={title}>
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
      </PageHeader>
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

/** Shown in a new chat: an introduction, image buttons and examples. */
function EmptyState() {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const headingId = useId();
  const connection = useStore(app.connection);
  const addExample = async ({ url, name }: Example) => {
    const response = await fetch(url);
    app.draft.add([{ blob: await response.blob(), name }]);
  };
  return (
    <div class="empty">
      <h2>{t.heading}</h2>
      <p class="introduction">{t.introduction(connection.kind === "ready" ? connection.model.name : "minigpt4")}</p>
      <div class="finder">
        <div class="row">
          <ImageInput labels />
        </div>
        <p class="note fine-only">{t.drop}</p>
      </div>
      <h3 id={headingId}>{t.examples}</h3>
      <ul class="film" aria-labelledby={headingId}>
        {examples.map((example) => (
          <li key={example.name}>
            <button
              type="button"
              onClick={() => addExample(example)}
              aria-label={`${exampleName(example)}: ${example.description}`}
              title={example.source}
            >
              <img src={example.url} alt="" />
              <span class="film-edge">{exampleName(example)}</span>
            </button>
          </li>
        ))}
      </ul>
      <p class="note">{t.privacy}</p>
    </div>
  );
}

function exampleName({ name }: Example): string {
  return name.replace(/\.\w+$/, "");
}

/** A problem with the connection, and what to do. */
function ConnectionNote() {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const connection = useStore(app.connection);
  if (connection.kind === "connecting" && connection.progress) return <DownloadProgress {...connection.progress} />;
  if (connection.kind !== "problem") return null;
  const { kind, message } = connection.problem;
  const retries = kind !== "key" && kind !== "unable";
  return (
    <div class="problem" role="status">
      <Icon name={kind === "key" ? "key" : "warning"} />
      <div>
        <p>
          {t.problems[kind]} {retries && t.retrying}
        </p>
        {(kind === "failed" || kind === "unable") && <p class="note">{message}</p>}
      </div>
      <button type="button" class="button" onClick={() => (kind === "key" ? app.dialog.set("key") : app.connect())}>
        {kind === "key" ? t.enterKey : t.tryAgain}
      </button>
    </div>
  );
}

/** The progress of a model that is downloaded into this browser. */
function DownloadProgress({ received, total }: LoadProgress) {
  const t = useStrings(chatStrings);
  const start = useRef({ at: performance.now(), received });
  const perSecond = (received - start.current.received) / ((performance.now() - start.current.at) / 1000);
  const secondsLeft = perSecond > 0 ? Math.ceil((total - received) / perSecond) : undefined;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e6 ? 1 : 0);
  return (
    <div class="loading-note">
      {received < total ? (
        <>
          <progress value={received} max={total} aria-label={t.loadingModel} />
          {t.loadedOf(megabytes(received), megabytes(total), secondsLeft)}
        </>
      ) : (
        <span role="status">{t.startingModel}</span>
      )}
    </div>
  );
}
