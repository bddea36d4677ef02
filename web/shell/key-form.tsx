/** Asks for the key of a server that wants one. */
import { useState } from "preact/hooks";
import { apiKey } from "../backend/api-key.ts";
import { useWords } from "./language.ts";
import { shellWords } from "./words.ts";

/** @param tryKey asks the server with the key that was entered; whether it was taken */
export function KeyForm({ tryKey, onDone }: { tryKey: () => Promise<boolean>; onDone: () => void }) {
  const t = useWords(shellWords);
  const [key, setKey] = useState("");
  const [refused, setRefused] = useState(false);
  return (
    <form
      onSubmit={async (event) => {
        event.preventDefault();
        apiKey.set(key.trim() || undefined);
        if (await tryKey()) onDone();
        else setRefused(true);
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
