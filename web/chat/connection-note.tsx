/** Says when nobody answers, and what to do. */
import { Icon } from "../shell/icons.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { useChatApp } from "./chat-app.ts";
import { LoadingNote } from "./loading-note.tsx";
import { chatWords } from "./words.ts";

export function ConnectionNote() {
  const t = useWords(chatWords);
  const app = useChatApp();
  const connection = useStore(app.connection);
  if (connection.kind === "connecting" && connection.progress) return <LoadingNote {...connection.progress} />;
  if (connection.kind !== "problem") return null;
  const { kind, message } = connection.problem;
  const triesAgain = kind !== "key" && kind !== "unable";
  return (
    <div class="problem" role="status">
      <Icon name={kind === "key" ? "key" : "warning"} />
      <div>
        <p>
          {t.problems[kind]} {triesAgain && t.retrying}
        </p>
        {(kind === "failed" || kind === "unable") && <p class="note">{message}</p>}
      </div>
      <button type="button" class="button" onClick={() => (kind === "key" ? app.dialog.set("key") : app.connect())}>
        {kind === "key" ? t.enterKey : t.tryAgain}
      </button>
    </div>
  );
}
