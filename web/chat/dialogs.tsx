/** The dialogs of the chat, of which at most one is open. */
import { useState } from "preact/hooks";
import { apiKey } from "../backend/api-key.ts";
import { Dialog } from "../shell/dialog.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { useChatApp } from "./chat-app.ts";
import { examples } from "./examples.ts";
import { SettingsForm } from "./settings-form.tsx";
import { chatWords } from "./words.ts";

export function ChatDialogs() {
  const t = useWords(chatWords);
  const app = useChatApp();
  const open = useStore(app.dialog);
  const close = () => app.dialog.set(undefined);
  if (open === "settings") {
    return (
      <Dialog shape="drawer" title={t.settings} onClose={close}>
        <SettingsForm />
      </Dialog>
    );
  }
  if (open === "help") {
    return (
      <Dialog title={t.help} onClose={close}>
        <Help />
      </Dialog>
    );
  }
  if (open === "key") {
    return (
      <Dialog title={t.keyTitle} onClose={close}>
        <KeyForm onDone={close} />
      </Dialog>
    );
  }
  return null;
}

function Help() {
  const t = useWords(chatWords);
  const keys: readonly (readonly [string, string])[] = [
    ["Enter", t.keys.send],
    ["Shift + Enter", t.keys.line],
    ["Esc", t.keys.stop],
    ["↑", t.keys.editLast],
    ["Ctrl / ⌘ + V", t.keys.paste],
    ["Alt + N", t.keys.newChat],
    ["Alt + S", t.keys.settings],
    ["Alt + H", t.keys.help],
  ];
  return (
    <div class="help">
      <h3>{t.about}</h3>
      <p>{t.aboutText}</p>
      <p>{t.privacy}</p>
      <h3>{t.shortcuts}</h3>
      <dl class="keys">
        {keys.map(([key, does]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <h3>{t.credits}</h3>
      <ul class="credits" lang="en">
        {examples.map(({ name, shows, source }) => (
          <li key={name}>
            <b>{shows}</b>: {source}
          </li>
        ))}
      </ul>
    </div>
  );
}

function KeyForm({ onDone }: { onDone: () => void }) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const connection = useStore(app.connection);
  const [key, setKey] = useState("");
  const [tried, setTried] = useState(false);
  const refused = tried && connection.kind === "problem" && connection.problem.kind === "key";
  return (
    <form
      onSubmit={async (event) => {
        event.preventDefault();
        apiKey.set(key.trim() || undefined);
        await app.connect();
        setTried(true);
        if (app.connection.value.kind === "ready") onDone();
      }}
    >
      <p>{t.keyNote}</p>
      <input
        data-first
        type="password"
        autocomplete="off"
        aria-label={t.keyTitle}
        aria-invalid={refused}
        value={key}
        onInput={(event) => setKey(event.currentTarget.value)}
      />
      {refused && (
        <p class="wrong" role="alert">
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
