/** The frame around every page: sections, theme and language at the side, toasts and announcements above. */
import type { ComponentChildren } from "preact";
import { useEffect, useId } from "preact/hooks";
import { Announcer } from "./announcer.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon, type IconName } from "./icons.tsx";
import { type Language, language, languages, useWords } from "./language.ts";
import { Mark } from "./mark.tsx";
import { route, routeHash } from "./router.ts";
import { type Section, sections } from "./sections.ts";
import { sideOpen } from "./side.ts";
import { useStore } from "./store.ts";
import { type Theme, theme, themes } from "./theme.ts";
import { Toasts } from "./toasts.tsx";
import { shellWords } from "./words.ts";

const icons: Readonly<Record<Section, IconName>> = { chat: "chat", training: "curve", review: "review" };

const themeIcons: Readonly<Record<Theme, IconName>> = { system: "screen", light: "sun", dark: "moon" };

/** @param side what the page adds to the side, such as the list of chats */
export function Shell({ side, children }: { side?: ComponentChildren; children: ComponentChildren }) {
  const t = useWords(shellWords);
  const here = useStore(route);
  const offered = useStore(sections);
  useEffect(() => sideOpen.set(false), [here]);
  const sideContent = (
    <>
      <a class="brand" href={routeHash({ page: offered[0] ?? "chat" })}>
        <Mark />
        <span>minigpt4</span>
      </a>
      <nav class="sections" aria-label={t.sections}>
        {offered.map((page) => (
          <a
            key={page}
            href={`#/${page === "chat" ? "" : page}`}
            aria-current={here.page === page ? "page" : undefined}
          >
            <Icon name={icons[page]} />
            {t[page]}
          </a>
        ))}
      </nav>
      <div class="side-page">{side}</div>
      <footer class="side-foot">
        <ThemeSwitch />
        <LanguageSwitch />
      </footer>
    </>
  );
  return (
    <div class="shell">
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        {t.skip}
      </button>
      <aside class="side" aria-label={t.sidebar}>
        {sideContent}
      </aside>
      {useStore(sideOpen) && (
        <Dialog shape="drawer" title="minigpt4" onClose={() => sideOpen.set(false)}>
          <div class="side-in-drawer">{sideContent}</div>
        </Dialog>
      )}
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <Toasts />
      <Announcer />
    </div>
  );
}

function ThemeSwitch() {
  const group = useId();
  const t = useWords(shellWords);
  const chosen = useStore(theme);
  return (
    <div class="switch" role="radiogroup" aria-label={t.theme}>
      {themes.map((choice) => (
        <label key={choice} title={t.themes[choice]}>
          <input
            type="radio"
            name={group}
            class="unseen"
            aria-label={t.themes[choice]}
            checked={choice === chosen}
            onChange={() => theme.set(choice)}
          />
          <Icon name={themeIcons[choice]} />
        </label>
      ))}
    </div>
  );
}

function LanguageSwitch() {
  const t = useWords(shellWords);
  const chosen = useStore(language);
  return (
    <select
      class="small"
      aria-label={t.language}
      value={chosen}
      onChange={(event) => language.set(event.currentTarget.value as Language)}
    >
      {Object.entries(languages).map(([tag, name]) => (
        <option key={tag} value={tag} lang={tag}>
          {name}
        </option>
      ))}
    </select>
  );
}
