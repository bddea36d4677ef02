/** The line above a page: its title, the way to the side on small screens, and what the page adds. */
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { IconButton } from "./icon-button.tsx";
import { useWords } from "./language.ts";
import { sideOpen } from "./side.ts";
import { shellWords } from "./words.ts";

export function PageHead({ title, children }: { title: string; children?: ComponentChildren }) {
  const t = useWords(shellWords);
  useEffect(() => {
    document.title = title === "minigpt4" ? title : `${title} · minigpt4`;
  }, [title]);
  return (
    <header class="page-head">
      <IconButton class="open-side" icon="menu" name={t.openMenu} onClick={() => sideOpen.set(true)} />
      <h1>{title}</h1>
      {children}
    </header>
  );
}
