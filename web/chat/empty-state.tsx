/** What is shown before the first question: what this is, and images to begin with. */
import { useId } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { useChatApp } from "./chat-app.ts";
import { ImageInput } from "./composer.tsx";
import { type Example, examples } from "./examples.ts";
import { chatWords } from "./words.ts";

export function EmptyState() {
  const t = useWords(chatWords);
  const app = useChatApp();
  const headingId = useId();
  const connection = useStore(app.connection);
  const take = async ({ url, name }: Example) => {
    const response = await fetch(url);
    app.draft.add([{ blob: await response.blob(), name }]);
  };
  return (
    <div class="empty">
      <h2>{t.heading}</h2>
      <p class="introduction">{t.introduction(connection.kind === "ready" ? connection.model.name : "minigpt4")}</p>
      <div class="finder">
        <div class="row">
          <ImageInput words />
        </div>
        <p class="note fine-only">{t.drop}</p>
      </div>
      <h3 id={headingId}>{t.examples}</h3>
      <ul class="film" aria-labelledby={headingId}>
        {examples.map((example) => (
          <li key={example.name}>
            <button
              type="button"
              onClick={() => take(example)}
              aria-label={`${nameOf(example)}: ${example.shows}`}
              title={example.source}
            >
              <img src={example.url} alt="" />
              <span class="film-edge">{nameOf(example)}</span>
            </button>
          </li>
        ))}
      </ul>
      <p class="note">{t.privacy}</p>
    </div>
  );
}

/** What stands on the edge of the film. */
function nameOf({ name }: Example): string {
  return name.replace(/\.\w+$/, "");
}
