/** English or Chinese: the browser's language until the user chooses. Each room of the page has its own dictionary. */
import { preference } from "./preferences.ts";
import { useStore } from "./store.ts";

export const languages = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof languages;

/** A dictionary has the same words in each language; the English one says which. */
export type Dictionary<Words> = Readonly<Record<Language, Words>>;

export const language = preference<Language>("language", (kept) =>
  kept === "en" || kept === "zh" ? kept : browserLanguage(globalThis.navigator?.languages ?? []),
);

/** The first of the languages, most wanted first, that the page speaks. */
export function browserLanguage(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const known = tag.toLowerCase().split("-")[0];
    if (known === "en" || known === "zh") return known;
  }
  return "en";
}

/** The words of a dictionary in the language of the page. */
export function useWords<Words>(dictionary: Dictionary<Words>): Words {
  return dictionary[useStore(language)];
}

/** The words outside of components. */
export function words<Words>(dictionary: Dictionary<Words>): Words {
  return dictionary[language.value];
}

/** Keeps the document's `lang` as chosen. */
export function followLanguage(): void {
  const apply = (chosen: Language) => {
    document.documentElement.lang = chosen === "zh" ? "zh-Hans" : chosen;
  };
  apply(language.value);
  language.subscribe(apply);
}
