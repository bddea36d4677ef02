/** The dialogs of the chat, of which at most one is open. */
import { Dialog } from "../shell/dialog.tsx";
import { KeyForm } from "../shell/key-form.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { shellWords } from "../shell/words.ts";
import { useChatApp } from "./chat-app.ts";
import { examples } from "./examples.ts";
import { SettingsForm } from "./settings-form.tsx";
import { chatWords } from "./words.ts";

export function ChatDialogs() {
  const t = useWords(chatWords);
  const shell = useWords(shellWords);
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
    const tryKey = async () => {
      await app.connect();
      return app.connection.value.kind === "ready";
    };
    return (
      <Dialog title={shell.keyTitle} onClose={close}>
        <KeyForm tryKey={tryKey} onDone={close} />
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
