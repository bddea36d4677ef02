/** Language and theme. Both follow the browser until the user chooses. */
import { oneOf, preference, useStore } from "./store.ts";

export const languages = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof languages;

export const language = preference<Language>("language", (stored) =>
  stored === "en" || stored === "zh" ? stored : matchLanguage(globalThis.navigator?.languages ?? []),
);

/** The first of the given language tags, preferred first, that the page supports; else English. */
export function matchLanguage(tags: readonly string[]): Language {
  for (const tag of tags) {
    const base = tag.toLowerCase().split("-")[0];
    if (base === "en" || base === "zh") return base;
  }
  return "en";
}

/** The same strings in each language. The type comes from English; a missing translation does not compile. */
export type Translations<Strings> = Readonly<Record<Language, Strings>>;

/** Strings in the current language, inside components. */
export function useStrings<Strings>(translations: Translations<Strings>): Strings {
  return translations[useStore(language)];
}

/** Strings in the current language, outside components. */
export function getStrings<Strings>(translations: Translations<Strings>): Strings {
  return translations[language.value];
}

/** Keeps the document's `lang` attribute up to date. */
export function applyLanguage(): void {
  const apply = (current: Language) => {
    document.documentElement.lang = current === "zh" ? "zh-Hans" : current;
  };
  apply(language.value);
  language.subscribe(apply);
}

export const themes = ["system", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

export const theme = preference<Theme>("theme", oneOf(...themes));

/** Keeps the document's `data-theme` attribute up to date; without it, the style sheets follow the system. */
export function applyTheme(): void {
  const apply = (current: Theme) => {
    if (current === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
  };
  apply(theme.value);
  theme.subscribe(apply);
}
