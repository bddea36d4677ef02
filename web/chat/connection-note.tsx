/** Says when nobody answers, and what to do. */
import { Icon } from "../shell/icons.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { useChatApp } from "./chat-app.ts";
import { chatWords } from "./words.ts";

export function ConnectionNote() {
  const t = useWords(chatWords);
  const app = useChatApp();
  const connection = useStore(app.connection);
  if (connection.kind !== "problem") return null;
  const { kind, message } = connection.problem;
  return (
    <div class="problem" role="status">
      <Icon name={kind === "key" ? "key" : "warning"} />
      <div>
        <p>
          {t.problems[kind]} {kind !== "key" && t.retrying}
        </p>
        {kind === "failed" && <p class="note">{message}</p>}
      </div>
      <button type="button" class="button" onClick={() => (kind === "key" ? app.dialog.set("key") : app.connect())}>
        {kind === "key" ? t.enterKey : t.tryAgain}
      </button>
    </div>
  );
}
