/** Light or dark: as the system is set, or as the user chose. */
import { oneOf, preference } from "./preferences.ts";

export const themes = ["system", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

export const theme = preference<Theme>("theme", oneOf(...themes));

/** Keeps the document's `data-theme` as chosen; style sheets follow the system where it is absent. */
export function followTheme(): void {
  const apply = (choice: Theme) => {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  };
  apply(theme.value);
  theme.subscribe(apply);
}
