/** The layout of every page: sidebar with sections, theme and language; page header; toasts and announcements. */
import type { ComponentChildren } from "preact";
import { useEffect, useId } from "preact/hooks";
import { Dialog } from "./dialog.tsx";
import { Icon, IconButton, type IconName, Logo } from "./icons.tsx";
import { Announcer, Toasts } from "./notifications.tsx";
import { type Language, language, languages, type Theme, theme, themes, useStrings } from "./preferences.ts";
import { route, routeHash, type Section, sections, sidebarOpen } from "./router.ts";
import { useStore } from "./store.ts";
import { shellStrings } from "./strings.ts";

const icons: Readonly<Record<Section, IconName>> = { chat: "chat", training: "curve", review: "review" };

const themeIcons: Readonly<Record<Theme, IconName>> = { system: "screen", light: "sun", dark: "moon" };

/** @param side what the page adds to the sidebar, such as the list of chats */
export function Shell({ side, children }: { side?: ComponentChildren; children: ComponentChildren }) {
  const t = useStrings(shellStrings);
  const current = useStore(route);
  const offered = useStore(sections);
  useEffect(() => sidebarOpen.set(false), [current]);
  const sideContent = (
    <>
      <a class="brand" href={routeHash({ page: offered[0] ?? "chat" })}>
        <Logo />
        <span>minigpt4</span>
      </a>
      <nav class="sections" aria-label={t.sections}>
        {offered.map((page) => (
          <a
            key={page}
            href={`#/${page === "chat" ? "" : page}`}
            aria-current={current.page === page ? "page" : undefined}
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
      {useStore(sidebarOpen) && (
        <Dialog shape="drawer" title="minigpt4" onClose={() => sidebarOpen.set(false)}>
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
  const t = useStrings(shellStrings);
  const current = useStore(theme);
  return (
    <div class="switch" role="radiogroup" aria-label={t.theme}>
      {themes.map((choice) => (
        <label key={choice} title={t.themes[choice]}>
          <input
            type="radio"
            name={group}
            class="visually-hidden"
            aria-label={t.themes[choice]}
            checked={choice === current}
            onChange={() => theme.set(choice)}
          />
          <Icon name={themeIcons[choice]} />
        </label>
      ))}
    </div>
  );
}

function LanguageSwitch() {
  const t = useStrings(shellStrings);
  const current = useStore(language);
  return (
    <select
      class="small"
      aria-label={t.language}
      value={current}
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

/** The header of a page: menu button on narrow screens, title, and what the page adds. */
export function PageHeader({ title, children }: { title: string; children?: ComponentChildren }) {
  const t = useStrings(shellStrings);
  useEffect(() => {
    document.title = title === "minigpt4" ? title : `${title} · minigpt4`;
  }, [title]);
  return (
    <header class="page-head">
      <IconButton class="open-side" icon="menu" name={t.openMenu} onClick={() => sidebarOpen.set(true)} />
      <h1>{title}</h1>
      {children}
    </header>
  );
}
